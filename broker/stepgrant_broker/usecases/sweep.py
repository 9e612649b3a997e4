"""The sweeper: what a crash left behind is finished without anybody asking.

Rules:
* A run whose lease has lapsed is parked, and what its holder had is revoked; expired proofs and stored answers go.
* Whatever lives outside is taken back again and again until its issuer confirms it, however long that takes: intents
  whose broker died between mint and record, logins that nobody gave back, revocations that failed.
* The values of runs whose time of keeping is over are erased, a few in each round, with an entry for each.
* One thing that cannot be done must not keep the others waiting: an issuer that fails is left for the next round.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from stepgrant_broker.domain import runs
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.domain.grants import due_at
from stepgrant_broker.domain.journal import BROKER
from stepgrant_broker.domain.releasing import revoke
from stepgrant_broker.domain.state import Grant, GrantStatus, RunState
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import leases
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.erase import erase_kept
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact

BATCH: Final = 200
ERASED_AT_ONCE: Final = 10
"""Of one outcome in a round: the values of one run can be many rows, and nobody waits for them to go."""
LONGEST_S: Final = 20.0
"""How long one credential outside may keep a round; a dead issuer is asked again in the next."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round did. `oldest_ms`: how long the oldest credential outside has been due without confirmation."""

    parked: int
    confirmed: int = 0
    unconfirmed: int = 0
    oldest_ms: int = 0
    erased: int = 0


async def sweep(ports: Ports) -> Swept:
    """One round. Raises the last fault of the store, after everything else was done."""
    now = await ports.reads.now()
    parked, failed = 0, None
    for tenant, run in await ports.reads.lapsed(now, BATCH):
        try:
            parked += await _park_lapsed(ports, tenant, run)
        except StepgrantFault as fault:
            # One run that cannot be parked must not keep the others, or the clean-up, waiting.
            failed = fault
    swept = await _take_back_due(ports, now, parked)
    erased = 0
    for tenant, run in await _over(ports, now):
        try:
            await erase_kept(ports, tenant, run)
            erased += 1
        except StepgrantFault as fault:
            failed = fault
    await ports.reads.forget_expired(now)
    if failed is not None:
        raise failed
    return replace(swept, erased=erased)


async def _over(ports: Ports, now: int) -> list[tuple[str, str]]:
    """A few runs whose time of keeping is over."""
    found: list[tuple[str, str]] = []
    for state, kept_ms in ports.limits.kept_ms.items():
        found += await ports.reads.erasable(state, now - kept_ms, ERASED_AT_ONCE)
    return found


async def _park_lapsed(ports: Ports, tenant: str, run: str) -> int:
    async def work(loaded: Loaded) -> Change[int] | Repeat[int]:
        known = loaded.view.run
        if known is None or known.state is not RunState.OPEN or loaded.lease_until > loaded.now:
            return Repeat(0)
        journal = journal_for(ports, loaded, BROKER)
        runs.park(journal, "lease_lapsed", cause="lease_lapsed")
        return Change(1, journal)

    return await leases.transact_and_take_back(ports, Query(tenant, run=run, unfinished=True), work)


async def _take_back_due(ports: Ports, now: int, parked: int) -> Swept:
    confirmed, left, oldest, failing = 0, 0, 0, set[str]()
    for tenant, _, jti in await ports.reads.leases_due(now, BATCH):
        grant = await _ended(ports, tenant, jti)
        if grant is None:
            continue
        try:
            dead = grant.issuer not in failing and await _confirmed(ports, grant)
        except StepgrantFault:
            failing.add(grant.issuer)
            dead = False
        if dead:
            confirmed += 1
        elif due_at(grant) is not None:
            left, oldest = left + 1, max(oldest, now - (due_at(grant) or now))
    return Swept(parked, confirmed, left, oldest)


async def _ended(ports: Ports, tenant: str, jti: str) -> Grant | None:
    """The grant, taken back in the record if it was not; `None` when there is nothing left to do for it."""

    async def work(loaded: Loaded) -> Change[Grant | None] | Repeat[Grant | None]:
        known = loaded.view.grants.get(jti)
        due = None if known is None else due_at(known)
        if known is None or due is None or due > loaded.now:
            return Repeat(None)
        if known.status not in {GrantStatus.INTENT, GrantStatus.ISSUED}:
            return Repeat(known)
        journal = journal_for(ports, loaded, BROKER)
        revoke(journal, known, "never_released" if known.status is GrantStatus.INTENT else "expired")
        return Change(journal.view.grants[jti], journal)

    return await transact(ports, Query(tenant, grant=jti), work)


async def _confirmed(ports: Ports, grant: Grant) -> bool:
    try:
        async with asyncio.timeout(LONGEST_S):
            return await leases.confirm(ports, grant)
    except TimeoutError:
        return False
