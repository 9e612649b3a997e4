"""Credentials outside that are due, taken back round after round until their issuers confirm it.

Rules:
* Issuers wait for none of each other: each has a task of its own, which a round leaves to itself after `WAITED_S`.
* All that is due passes by: a round looks at `LOOKED_AT` grants and the next goes on behind them, so that those of an
  issuer that is gone hide none of another's.
* An issuer that is silent `SILENT_TIMES` in a row, or hangs once, is left for the next round. One that answers, and
  refuses, is well: what it refuses concerns that grant alone, and so does a record that cannot be read or written.
* What failed is tried after what did not, and what will fail again rests (`misses.py`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable, SignerUnavailable, StepgrantFault
from stepgrant_broker.domain.grants import due_at
from stepgrant_broker.domain.journal import BROKER
from stepgrant_broker.domain.reads import Due
from stepgrant_broker.domain.releasing import revoke
from stepgrant_broker.domain.state import Grant, GrantStatus
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases import leases
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.misses import Misses, Name
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact

TAKE_BACK: Final = "take_back"
LOOKED_AT: Final = 1000
AT_ONCE: Final = 4
"""Side by side at one issuer."""
SILENT_TIMES: Final = 3
WAITED_S: Final = 3.0
"""How long a round waits for all issuers together; what is still under way goes on beside the next rounds."""
LONGEST_S: Final = 20.0
"""How long one credential may take its issuer."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Something of a round that could not be done: which work, in which run, and the fault's code and type."""

    work: str
    run: str
    code: str
    kind: str


def failed(work: str, run: str, error: Exception) -> Failed:
    """Without the error's text, which may hold anything."""
    return Failed(work, run, error.code if isinstance(error, StepgrantFault) else "internal", type(error).__name__)


class _Heard(Enum):
    ANSWER = auto()
    SILENCE = auto()
    HANGS = auto()


@dataclass(slots=True)
class _Issuer:
    """What a task hears of its issuer."""

    silent: int = 0
    given_up: bool = False

    def heard(self, what: _Heard) -> None:
        self.silent = self.silent + 1 if what is _Heard.SILENCE else 0
        self.given_up |= what is _Heard.HANGS or self.silent >= SILENT_TIMES


class TakingBack:
    """One for all rounds of a sweeper. `confirmed` counts, and `failed` collects, until the round takes them.

    `unknown`: issuers of what is due that are not configured, so that nobody can take it back.
    """

    def __init__(self, misses: Misses) -> None:
        self._misses = misses
        self._after: Due | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self.confirmed = 0
        self.failed: list[Failed] = []
        self.unknown: set[str] = set()

    async def round(self, ports: Ports, now: int, *, wait_s: float | None) -> None:
        """Ask the issuers of what is due, and wait for them `wait_s` (`None`: until all is done).

        Raises `StoreUnavailable`.
        """
        due = await ports.reads.leases_due(now, LOOKED_AT, self._after)
        self._after = due[-1] if len(due) >= LOOKED_AT else None
        self.unknown |= {one.issuer for one in due} - ports.issuers.keys()
        by_issuer = defaultdict[str, list[Due]](list)
        for one in due:
            if not self._misses.rests(_name(one), now):
                by_issuer[one.issuer].append(one)
        # What was under way before is not waited for again.
        started: list[asyncio.Task[None]] = []
        for issuer, some in by_issuer.items():
            if issuer not in self._under_way:
                some.sort(key=lambda one: self._misses.tried(_name(one)))
                self._under_way[issuer] = asyncio.create_task(self._of_issuer(ports, some, now))
                started.append(self._under_way[issuer])
        if started:
            await asyncio.wait(started, timeout=wait_s)
        for issuer, task in tuple(self._under_way.items()):
            if task.done():
                del self._under_way[issuer]
                task.result()

    async def stop(self) -> None:
        """End what is under way; what is committed stays, and the rest stays due."""
        tasks, self._under_way = tuple(self._under_way.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _of_issuer(self, ports: Ports, due: Sequence[Due], now: int) -> None:
        issuer, left = _Issuer(), iter(due)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(due))):
                group.create_task(self._some(ports, issuer, left, now))

    async def _some(self, ports: Ports, issuer: _Issuer, left: Iterator[Due], now: int) -> None:
        while not issuer.given_up:
            one = next(left, None)
            if one is None:
                return
            issuer.heard(await self._one(ports, one, now))

    async def _one(self, ports: Ports, one: Due, now: int) -> _Heard:
        name = _name(one)
        try:
            async with asyncio.timeout(LONGEST_S):
                dead = await _take_back(ports, one)
        except TimeoutError:
            self._misses.note(name, now, rest=False)
            return _Heard.HANGS
        except Exception as error:  # noqa: BLE001 - a bug or damage in one run must not keep all others waiting
            silent = isinstance(error, IssuerUnavailable) and not isinstance(error, IssuerRefused | SignerUnavailable)
            self._misses.note(name, now, rest=not silent)
            if silent:
                return _Heard.SILENCE
            self.failed.append(failed(TAKE_BACK, one.run, error))
            # A store that is down fails for everything: then this is silence too, but the grant rests.
            return _Heard.ANSWER if isinstance(error, IssuerRefused) else _Heard.SILENCE
        if dead is False:
            self._misses.note(name, now, rest=one.issuer not in ports.issuers)
        else:
            self._misses.forget(name)
            self.confirmed += dead is True
        return _Heard.ANSWER


def _name(one: Due) -> Name:
    return (TAKE_BACK, one.tenant, one.jti)


async def _take_back(ports: Ports, one: Due) -> bool | None:
    """Whether its issuer says that it is dead; `None` when nothing is left to do. Raises as `leases.confirm`."""
    grant = await ended(ports, one.tenant, one.jti)
    if grant is None:
        return None
    # That nobody is there to ask is no failure of the round; the grant stays due, and is counted.
    dead = one.issuer in ports.issuers and await leases.confirm(ports, grant)
    # An intent of an issuer that confirms nothing has failed: it was told, and that is all.
    return dead or (None if due_at(grant) is None else False)


async def ended(ports: Ports, tenant: str, jti: str) -> Grant | None:
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
