"""Credentials outside the broker: minted between two commits, and taken back until their issuer confirms it.

Rules (`architecture.md` §3):
* The intent with its handle is durable before anything is minted; the lease is durable before anything is released.
* A conflict after the mint never mints again: what was minted is taken back, and nothing is released.
* Taking back never fails the call that caused it: what cannot be confirmed now stays due, and the sweeper goes on.
* Handle and lease are erased by the commit that records the confirmation (the issuer's, or a person's in its place:
  `declare_dead.py`), and by nothing else.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from stepgrant import canonical
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable, StepgrantFault
from stepgrant_broker.domain.grants import MINT_DEADLINE_MS, needs_confirmation
from stepgrant_broker.domain.holding import refuse_quarantined, require_holder
from stepgrant_broker.domain.journal import BROKER, Journal
from stepgrant_broker.domain.leasing import record_death, record_lease
from stepgrant_broker.domain.ports import GrantOrder, Issuer, Minted
from stepgrant_broker.domain.releasing import revoke
from stepgrant_broker.domain.state import Grant, GrantStatus
from stepgrant_broker.domain.writes import Loaded, ProofUse, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.transact import Change, Repeat, by_agent, journal_for, transact

T = TypeVar("T")
TAKE_BACK_S: Final = 3.0
"""How long a call waits for the death of what it took back; the sweeper has no such limit."""
AT_ONCE: Final = 8
"""Side by side at one issuer: one that hangs holds up none of another's."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A mint that was prepared at an outside issuer. `handle` names it there; it is no secret, but a lever."""

    issuer: Issuer
    order: GrantOrder
    handle: str


async def transact_and_take_back(
    ports: Ports,
    query: Query,
    decide: Callable[[Loaded], Awaitable[Change[T] | Repeat[T]]],
    *,
    proof: ProofUse | None = None,
    request: Request | None = None,
) -> T:
    """`transact`; what the commit took back outside is then killed there. Raises as `transact` does."""
    journals: list[Journal] = []
    try:
        return await transact(ports, query, decide, proof=proof, request=request, committed=journals.append)
    finally:
        if gone := taken_back(journals):
            await take_back(ports, gone)


def taken_back(journals: Iterable[Journal]) -> list[Grant]:
    """The grants with something outside that these journals ended."""
    return [
        grant
        for journal in journals
        for grant in journal.view.grants.values()
        if grant.handle_c is not None and _was_ended(journal, grant)
    ]


def _was_ended(journal: Journal, grant: Grant) -> bool:
    before = journal.before.grants.get(grant.jti)
    over = grant.status in {GrantStatus.REVOKED, GrantStatus.FAILED}
    return over and (before is None or before.status is not grant.status)


async def take_back(ports: Ports, grants: Iterable[Grant]) -> bool:
    """Kill these at their issuers, several at once at each; True when all are done with. Never raises a fault."""
    turns = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(AT_ONCE))

    async def one(grant: Grant) -> bool:
        async with turns[grant.issuer]:
            try:
                return await confirm(ports, grant)
            except StepgrantFault:
                return False

    try:
        async with asyncio.timeout(TAKE_BACK_S):
            return all(await asyncio.gather(*(one(grant) for grant in grants)))
    except TimeoutError:
        return False


async def confirm_older(ports: Ports, tenant: str, run: str) -> bool:
    """Kill what this run's older epochs left alive at issuers; True when there was something and all of it is dead."""
    loaded = await ports.store.load(Query(tenant, run=run, unfinished=True))
    left = [grant for grant in loaded.view.grants.values() if needs_confirmation(grant)]
    return bool(left) and await take_back(ports, left)


async def confirm(ports: Ports, grant: Grant) -> bool:
    """Revoke at the issuer and, once it confirms, record it and erase handle and lease. True when that is done.

    Raises `IssuerUnavailable`, and what the store raises.
    """
    issuer = ports.issuers.get(grant.issuer)
    if issuer is None:
        raise IssuerUnavailable(f"issuer {grant.issuer} is not configured any more, but grants of it may live")
    names = [c for c in (grant.handle_c, grant.lease_c) if c is not None]
    known = await ports.reads.payloads(grant.tenant, grant.run, names)
    handle, lease = _text(known, grant.handle_c), _text(known, grant.lease_c)
    if handle is None and lease is None:
        # Erased: another replica recorded the confirmation since this grant was read.
        return True
    now = await ports.reads.now()
    dead = await issuer.revoke(tenant=grant.tenant, jti=grant.jti, handle=handle, lease=lease, now=now)
    if dead:
        await _record_death(ports, grant)
    return dead


def _text(known: Mapping[str, Payload], c: str | None) -> str | None:
    payload = known.get(c or "")
    value = None if payload is None else canonical.loads(payload.body)
    return value if isinstance(value, str) else None


async def _record_death(ports: Ports, grant: Grant) -> None:
    async def work(loaded: Loaded) -> Change[None] | Repeat[None]:
        journal = journal_for(ports, loaded, BROKER)
        erased = record_death(journal, grant.jti)
        return Repeat(None) if erased is None else Change(None, journal, erase=erased)

    await transact(ports, Query(grant.tenant, grant=grant.jti), work)


async def prepare(issuer: Issuer, order: GrantOrder) -> Intent | None:
    """The intent of an outside issuer; `None` for one of ours. Raises `IssuerUnavailable`."""
    if not issuer.outside:
        return None
    try:
        async with asyncio.timeout(MINT_DEADLINE_MS / 1000):
            handle = await issuer.intend(order)
    except TimeoutError:
        raise IssuerUnavailable(f"issuer {issuer.name} did not answer in time", retry_after_ms=1000) from None
    if handle is None:
        raise IssuerRefused(f"issuer {issuer.name} mints outside and gave no handle to take it back by")
    return Intent(issuer, order, handle)


async def forget(intents: Iterable[Intent]) -> None:
    """Drop intents that no commit recorded. They have minted nothing and die by themselves; this is only sooner."""
    for intent in intents:
        with suppress(StepgrantFault, TimeoutError):
            async with asyncio.timeout(TAKE_BACK_S):
                await _revoke(intent, None)


async def _revoke(intent: Intent, lease: str | None) -> bool:
    """What was made a moment ago: the time of its order is now, and nothing is dead by it."""
    order = intent.order
    return await intent.issuer.revoke(
        tenant=order.tenant, jti=order.jti, handle=intent.handle, lease=lease, now=order.issued_at
    )


async def mint(ports: Ports, caller: AgentCaller, intent: Intent, grant: Grant) -> tuple[Minted, Grant]:
    """Mint for a recorded intent, check, and record the lease: only then may it be released.

    Raises `IssuerUnavailable`, `IssuerRefused`, `StaleEpoch`, `GrantRevoked`, and what the store raises; then nothing
    is released, and what was minted is taken back.
    """
    minted: Minted | None = None
    try:
        if ports.failpoints is not None:
            ports.failpoints.hit("usecase.before_mint")
        async with asyncio.timeout(MINT_DEADLINE_MS / 1000):
            minted = await intent.issuer.mint(intent.order, intent.handle)
        if ports.failpoints is not None:
            ports.failpoints.hit("usecase.after_mint")
        intent.issuer.check(intent.order, minted)
        recorded = await _record_lease(ports, caller, grant, minted)
        if ports.failpoints is not None:
            ports.failpoints.hit("usecase.after_lease")
    except TimeoutError:
        await _abandon(ports, intent, grant, None, "mint_timed_out")
        raise IssuerUnavailable(f"issuer {grant.issuer} did not mint in time", retry_after_ms=1000) from None
    except StepgrantFault as fault:
        await _abandon(ports, intent, grant, minted, "mint_failed" if minted is None else fault.code)
        raise
    return minted, recorded


async def _record_lease(ports: Ports, caller: AgentCaller, grant: Grant, minted: Minted) -> Grant:
    async def work(loaded: Loaded) -> Change[Grant] | Repeat[Grant]:
        require_holder(loaded, caller, grant.epoch)
        refuse_quarantined(loaded.quarantines, loaded.now, issuer=grant.issuer)
        journal = journal_for(ports, loaded, by_agent(caller))
        recorded = record_lease(journal, grant.jti, lease=minted.lease, expires_at=minted.expires_at)
        return Change(recorded, journal, guarded=True)

    return await transact(ports, Query(caller.tenant, run=grant.run, step=grant.step), work)


async def _abandon(ports: Ports, intent: Intent, grant: Grant, minted: Minted | None, cause: str) -> None:
    """Nothing was released. End the intent in the record, then take back what there is; the sweeper does the rest."""
    # If it is the store that failed, or somebody else was faster, the intent stays due, or is ended already.
    with suppress(StepgrantFault):
        await _end_intent(ports, grant, cause)
    with suppress(StepgrantFault, TimeoutError):
        async with asyncio.timeout(TAKE_BACK_S):
            if await _revoke(intent, minted.lease if minted is not None else None):
                await _record_death(ports, grant)


async def _end_intent(ports: Ports, grant: Grant, cause: str) -> None:
    async def work(loaded: Loaded) -> Change[None] | Repeat[None]:
        known = loaded.view.grants.get(grant.jti)
        if known is None or known.status is not GrantStatus.INTENT:
            return Repeat(None)
        journal = journal_for(ports, loaded, BROKER)
        revoke(journal, known, cause)
        return Change(None, journal)

    await transact(ports, Query(grant.tenant, run=grant.run, step=grant.step), work)
