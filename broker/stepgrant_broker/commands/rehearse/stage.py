"""The private broker of one rehearsal, and what people do to it.

Rules:
* It is the broker that tests get (entry point `stepgrant.testing`): real database, policy engine and HTTP, in this
  process, below the rehearsal's folder, on a free loopback port.
* Credentials live a few seconds at most, so that waiting out a dead one's life does not take minutes.
* The lease of a process that is known to be dead is ended at once, by the same commit that would extend it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, cast

from stepgrant.receipt import Event
from stepgrant.testing._broker import find_start
from stepgrant.testing._host import Host
from stepgrant_broker.domain.journal import BROKER
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact

if TYPE_CHECKING:
    from stepgrant_broker.domain.state import Approval, Grant, Run, Step
    from stepgrant_broker.wiring import Broker

T = TypeVar("T")
WORKLOAD: Final = "rehearsal"
LEASE_S: Final = 30.0
ALL: Final = Page(500)
QUICK: Final = {"redeem_window_ms": 2_000, "leeway_ms": 200}

_STARTING: Final = threading.Lock()
"""Alembic knows one migration at a time in a process."""


class _TestHost(Host, Protocol):
    """What this broker's own entry point gives beyond what the SDK asks of any."""

    def call(self, work: Callable[[Broker], Coroutine[Any, Any, T]]) -> T: ...

    def runs(self) -> Sequence[Run]: ...

    def ledger_findings(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What the broker holds in the end."""

    runs: tuple[Run, ...]
    events: Mapping[str, tuple[Event, ...]]
    live: tuple[Grant, ...]
    """Grants that still count."""


class Stage:
    """A private broker. Use it in a `with` block."""

    def __init__(self, folder: Path, policy: Mapping[str, str], agents: Sequence[str], ttl_s: int) -> None:
        start = find_start()
        limits: dict[str, Any] = {**QUICK, "grant_ttl_s": ttl_s, "grant_ttl_max_s": ttl_s}
        with _STARTING:
            self._host = cast("_TestHost", start(folder, policy=policy, lease_s=LEASE_S, **limits))
        try:
            self._key = self._host.enroll(WORKLOAD, agents=agents)
        except BaseException:
            self._host.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._host.close()

    @property
    def environment(self) -> dict[str, str]:
        """What an agent of this broker finds in its environment."""
        return {"STEPGRANT_URL": self._host.url, "STEPGRANT_WORKLOAD_KEY": str(self._key)}

    @property
    def operator(self) -> str:
        """A new person's token, for services that enrol themselves."""
        return self._host.operator("rehearsal")

    def pending(self) -> tuple[Approval, ...]:
        """Questions that nobody has answered."""

        async def read(broker: Broker) -> tuple[Approval, ...]:
            listed = await broker.ports.reads.approvals(broker.settings.tenant, ALL, status="pending")
            return listed.rows

        return self._host.call(read)

    def approve(self, approval: str) -> None:
        """People say yes, as many as it takes."""
        self._host.approve(approval, note="rehearsal")

    def activate(self, policy: Mapping[str, str]) -> None:
        """Another policy decides from now on."""
        self._host.set_policy(policy)

    def runs(self) -> tuple[Run, ...]:
        """All runs, newest first."""
        return tuple(self._host.runs())

    def bury(self) -> None:
        """No process of the agent lives any more: end the leases, and park what was open, as a lapsed lease would."""
        for run in self.runs():
            if run.state.value == "open":
                self._host.call(functools.partial(_end_lease, run=run))
        self._host.call(lambda broker: broker.sweep_now())

    def look(self) -> Standing:
        """What is there now."""
        runs = self.runs()

        async def live(broker: Broker) -> tuple[Grant, ...]:
            return (await broker.ports.reads.grants(broker.settings.tenant, ALL, live=True)).rows

        return Standing(
            runs=runs,
            events={run.id: tuple(self._host.entries(run.id)) for run in runs},
            live=self._host.call(live),
        )

    def in_doubt(self) -> frozenset[str]:
        """The steps that are in doubt now."""

        async def read(broker: Broker, run: Run) -> tuple[Step, ...]:
            return (await broker.ports.reads.steps(run.tenant, run.id, ALL)).rows

        return frozenset(
            step.key
            for run in self.runs()
            for step in self._host.call(functools.partial(read, run=run))
            if step.state.value == "in_doubt"
        )

    def ledger_findings(self) -> list[str]:
        """What is wrong with the ledger: nothing, or it is ours to mend."""
        return self._host.ledger_findings()


async def _end_lease(broker: Broker, run: Run) -> None:
    async def work(loaded: Loaded) -> Change[None] | Repeat[None]:
        if loaded.view.run is None or loaded.view.run.state.ended:
            return Repeat(None)
        return Change(None, journal_for(broker.ports, loaded, BROKER), lease_until=loaded.now)

    await transact(broker.ports, Query(run.tenant, run=run.id), work)
