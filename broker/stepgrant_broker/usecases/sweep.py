"""The sweeper: what a crash left behind is finished without anybody asking.

Rules:
* A run whose lease has lapsed is parked, and what its holder had is revoked; expired proofs and stored answers go.
* Whatever lives outside is taken back again and again until its issuer confirms it, however long that takes: intents
  whose broker died between mint and record, logins that nobody gave back, revocations that failed (`taking_back.py`).
* The values of runs whose time of keeping is over are erased, a few in each round, with an entry for each.
* One thing that cannot be done must not keep the others waiting, neither in its round nor in later ones: it is told,
  rests, and is tried again (`misses.py`). Only a store that answers nothing ends a round.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from stepgrant_broker.domain import runs
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.domain.journal import BROKER
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.erase import erase_kept
from stepgrant_broker.usecases.misses import Misses
from stepgrant_broker.usecases.taking_back import WAITED_S, Failed, TakingBack, failed
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact

BATCH: Final = 200
ERASED_AT_ONCE: Final = 10
"""Of one outcome in a round: the values of one run can be many rows, and nobody waits for them to go."""
FAILED_TIMES: Final = 3
"""After so many failures in a row the rest of this work waits for the next round, and those that failed rest."""
PARK: Final = "park"
ERASE: Final = "erase"

Run = tuple[str, str]
"""Tenant and run."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What one round did, what of it `failed`, and the `fault` of a store that takes nothing now.

    `unconfirmed`: so many credentials outside are due and not known to be dead, also beyond those that the round looked
    at; `oldest_ms`: for how long the oldest of them is due.
    """

    parked: int
    confirmed: int = 0
    unconfirmed: int = 0
    oldest_ms: int = 0
    erased: int = 0
    failed: tuple[Failed, ...] = ()
    fault: StepgrantFault | None = None


class Sweeping:
    """What a process remembers between its rounds."""

    def __init__(self) -> None:
        self.misses = Misses()
        self.outside = TakingBack(self.misses)


async def sweep(ports: Ports, memory: Sweeping | None = None) -> Swept:
    """One round; without `memory` it stands alone, and all issuers are waited for. Raises `StoreUnavailable`."""
    if memory is not None:
        return await _round(ports, memory, wait_s=WAITED_S)
    alone = Sweeping()
    try:
        return await _round(ports, alone, wait_s=None)
    finally:
        await alone.outside.stop()


async def _round(ports: Ports, memory: Sweeping, *, wait_s: float | None) -> Swept:
    misses, outside, reads = memory.misses, memory.outside, ports.reads
    now = await reads.now()
    lapsed = await reads.lapsed(now, BATCH + misses.resting(PARK, now))
    parked, not_parked = await _each(misses, PARK, now, lapsed, lambda tenant, run: _park_lapsed(ports, tenant, run))
    # What its holders had is due from the commit on: by a clock that is read after it.
    now = await reads.now()
    await outside.round(ports, now, wait_s=wait_s)
    confirmed, outside.confirmed = outside.confirmed, 0
    not_taken, outside.failed = outside.failed, []
    over = await _over(ports, now, misses.resting(ERASE, now))
    erased, not_erased = await _each(misses, ERASE, now, over, lambda tenant, run: _erase(ports, tenant, run))
    fault = None
    try:
        await reads.forget_expired(now)
    except StepgrantFault as gone:
        fault = gone
    with suppress(StepgrantFault):
        # Only notes, and nothing is wrong without them; a store that is gone is told by what follows.
        await reads.let_rest()
    now = await reads.now()
    left, oldest = await reads.leases_left(now)
    oldest_ms = 0 if oldest is None else now - oldest
    return Swept(parked, confirmed, left, oldest_ms, erased, (*not_parked, *not_taken, *not_erased), fault)


async def _each(
    misses: Misses, work: str, now: int, of: Iterable[Run], act: Callable[[str, str], Awaitable[int]]
) -> tuple[int, list[Failed]]:
    """Do it to each that does not rest: how often it was done, and what failed. A store that is gone ends it early."""
    done, in_a_row, wrong = 0, 0, list[Failed]()
    for tenant, run in of:
        name = (work, tenant, run)
        if misses.rests(name, now):
            continue
        try:
            done += await act(tenant, run)
        except Exception as error:  # noqa: BLE001 - a bug or damage in one run must not keep all others waiting
            misses.note(name, now)
            wrong.append(failed(work, run, error))
            in_a_row += 1
            if in_a_row == FAILED_TIMES:
                break
        else:
            in_a_row = 0
            misses.forget(name)
    return done, wrong


async def _over(ports: Ports, now: int, resting: int) -> list[Run]:
    """A few runs whose time of keeping is over."""
    found: list[Run] = []
    for state, kept_ms in ports.limits.kept_ms.items():
        found += await ports.reads.erasable(state, now - kept_ms, ERASED_AT_ONCE + resting)
    return found


async def _erase(ports: Ports, tenant: str, run: str) -> int:
    await erase_kept(ports, tenant, run)
    return 1


async def _park_lapsed(ports: Ports, tenant: str, run: str) -> int:
    """Park it, if it is still lapsed; 1 if it was. Its credentials outside are then due, and taken back with others."""

    async def work(loaded: Loaded) -> Change[int] | Repeat[int]:
        known = loaded.view.run
        if known is None or known.state is not RunState.OPEN or loaded.lease_until > loaded.now:
            return Repeat(0)
        journal = journal_for(ports, loaded, BROKER)
        runs.park(journal, "lease_lapsed", cause="lease_lapsed")
        return Change(1, journal)

    return await transact(ports, Query(tenant, run=run, unfinished=True), work)
