"""The database and what stands in it: schema, clock, policy in force, work left undone, credentials that live on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.ledger.seen import FIX
from stepgrant_broker.policy.check import check
from stepgrant_broker.policy.findings import Finding, PolicyInvalid, grave
from stepgrant_broker.usecases.activate_policy import is_in_force
from stepgrant_broker.wiring.doctor.clocks import apart
from stepgrant_broker.wiring.doctor.findings import Area, Found
from stepgrant_broker.wiring.doctor.versions import postgres_says, version_of

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.wiring.broker import Broker

LATE_MS: Final = 60_000
"""What is due for longer than this nobody sweeps."""
MANY: Final = 1000

DATABASE, POLICY, WORK = Area("database"), Area("policy"), Area("work")


async def schema(settings: Settings) -> AsyncIterator[Found]:
    """Whether the database is there, is ours, has this version's schema, and is one that the broker is tested with."""
    from stepgrant_broker.wiring.databases import check_database  # noqa: PLC0415 - it imports every adapter

    try:
        await asyncio.to_thread(check_database, settings)
    except StepgrantFault as fault:
        yield DATABASE.fail("schema", fault.detail, "`stepgrant db migrate` brings an older one up; see the message")
    else:
        yield DATABASE.ok("schema", "it has this version's schema")
    if settings.postgres_url is None:
        return
    try:
        said = await asyncio.to_thread(postgres_says, settings.postgres_url.get_secret_value())
    except StepgrantFault as fault:
        yield DATABASE.unseen("version", fault.detail)
    else:
        yield version_of(DATABASE, said, "PostgreSQL")


async def clock(broker: Broker) -> AsyncIterator[Found]:
    """How far this host's clock is from the store's."""
    before = time.time()
    there = await broker.ports.reads.now()
    ahead_ms = round(apart(there, before * 1000, time.time() * 1000))
    leeway = broker.ports.limits.leeway_ms
    if abs(ahead_ms) > leeway:
        yield DATABASE.fail(
            "clock", f"the store's clock is {ahead_ms} ms from this host's, over the leeway of {leeway} ms",
            "set both by NTP; leases and proofs are judged by them",
        )  # fmt: skip
    else:
        yield DATABASE.ok("clock", f"{abs(ahead_ms)} ms between the store's clock and this host's")
    for tenant in await broker.ports.reads.tenants():
        ahead = tenant.last_ts - there
        if ahead > leeway:
            yield DATABASE.fail(
                "clock", f"tenant {tenant.id} has entries {ahead // 1000} s in the future: a clock was wrong, or is",
                "set the clock right; until it has caught up, agents are refused",
            )  # fmt: skip


async def newest(broker: Broker) -> AsyncIterator[Found]:
    """Whether the database has all that was seen of its log outside of it."""
    found = await broker.seen.contradictions(ask_witnesses=True)
    for one in found:
        yield DATABASE.fail("newest", f"it was rolled back: {one.why}", FIX)
    if not found and broker.seen.file.read() is None:
        yield DATABASE.warn(
            "newest", f"no head was kept outside of it at {broker.seen.file.path}",
            "the first head that counts is kept there; if there was one before, compare with a head of somebody else",
        )  # fmt: skip
    elif not found:
        yield DATABASE.ok("newest", "it has all that was seen of its log outside of it")


async def policy(settings: Settings, broker: Broker | None) -> AsyncIterator[Found]:
    """Whether the policy on disk is sound, and whether it is the one in force."""
    from stepgrant_broker.wiring.broker import policy_of  # noqa: PLC0415 - it imports every adapter

    where = settings.policy_dir or "the starter policy"
    try:
        bundle = await asyncio.to_thread(policy_of, settings)
        issuers = broker.ports.issuers.keys() if broker is not None else None
        findings = await asyncio.to_thread(check, bundle, issuers)
    except PolicyInvalid as invalid:
        bundle, findings = None, tuple(invalid.findings)
    if bundle is not None and findings and await _goes_on(bundle, findings, broker):
        yield POLICY.warn(
            "text", f"{where}: {_many(len(findings), 'finding')} of newer checks, the first: {findings[0]}",
            f"it goes on only because it is in force; correct what `stepgrant policy check {where}` lists",
        )  # fmt: skip
    elif bundle is None or findings:
        yield POLICY.fail(
            "text", f"{where}: {len(findings)} findings, the first: {findings[0]}",
            f"`stepgrant policy check {where}` lists them",
        )  # fmt: skip
        return
    else:
        yield POLICY.ok("text", f"{where} has no findings ({bundle.digest})")
    if broker is None:
        yield POLICY.unseen("revision", "the database cannot be read, so the revision in force is not known")
        return
    for tenant in await broker.ports.reads.tenants():
        active = tenant.policy_revision
        if active is None:
            yield POLICY.warn("revision", f"tenant {tenant.id} has no policy yet", "start the broker: it activates one")
        elif active.partition(":")[2] != bundle.digest:
            yield POLICY.warn(
                "revision", f"in force for {tenant.id} is {active}, which is not what {where} says now",
                "restart the broker (or use watch_policy) to activate it, or put the old text back",
            )  # fmt: skip
        else:
            yield POLICY.ok("revision", f"in force for {tenant.id}: {active}")


async def _goes_on(bundle: Bundle, findings: tuple[Finding, ...], broker: Broker | None) -> bool:
    """Whether the broker starts with it all the same: it is in force, and the checks of a start only advise."""
    if broker is None or not await is_in_force(broker.ports, bundle.digest):
        return False
    # A start does not look up issuers, so an unknown one came with no upgrade.
    return not grave(findings, in_force=True) and set(findings) <= set(await asyncio.to_thread(check, bundle))


async def work(broker: Broker) -> AsyncIterator[Found]:
    """What only a running sweeper does, and credentials outside that should be dead."""
    reads = broker.ports.reads
    now = await reads.now()
    late = await reads.lapsed(now - LATE_MS, MANY)
    if late:
        yield WORK.warn(
            "sweeper", f"{_many(len(late), 'run')} lapsed over a minute ago and not parked: nobody sweeps",
            "start the broker, and look for round_failed (work: sweeper) in its log",
        )  # fmt: skip
    else:
        yield WORK.ok("sweeper", "no lapsed run waits to be parked")
    due = await reads.leases_due(now - LATE_MS, MANY)
    if not due:
        yield WORK.ok("leases", "no credential outside is due and unconfirmed")
        return
    issuers = Counter(one.issuer for one in due)
    told = ", ".join(f"{name} {count}" for name, count in sorted(issuers.items()))
    yield WORK.fail(
        "leases", f"{_many(len(due), 'credential')} outside should be dead and may live: {told}",
        "mend the issuer (see below); the sweeper then takes them back by itself",
    )  # fmt: skip
    gone = sorted(name for name in issuers if name not in broker.ports.issuers)
    if gone:
        yield WORK.fail(
            "issuers", f"nobody can take back what these gave, they are not configured: {', '.join(gone)}",
            "put them back under these names; else, once their credentials are over, see `stepgrant grant list` and "
            "vouch for the death of each with `stepgrant grant declare-dead`",
        )  # fmt: skip


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}{' or more' if count == MANY else ''}"
