"""The broker's threads and its policy engine on one CPU at a time.

Rules:
* They take turns in any case: Python lets one thread of a process work at a time, and a call waits for its decision and
  for its commit. Woken across CPUs they pay an interrupt and cold caches for each turn (figures: DECISIONS 68).
* Nobody is woken into the middle of another one's turn (`SCHED_BATCH`, sched(7)): the writer would otherwise commit
  each set alone, because it is given the CPU as soon as the first one waits.
* Of CPUs that are about as idle, it is the one that hears the disk of a SQLite database (`near_disk.py`).
* It is a home, not a cage: when others keep this CPU busy and another one is idle, all of them move there together.
* Only Linux says where the time goes and lets a process choose. Elsewhere, and on one CPU, there is nothing to do.
"""

from __future__ import annotations

import os
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant_broker.wiring.near_disk import near_disk
from stepgrant_broker.wiring.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping

    from stepgrant_broker.config import Settings

EVERY_MS: Final = 2_000
CROWDED: Final = 0.25
"""The share of a CPU that others may take before it is worth looking for another one."""
GAIN: Final = 0.25
"""So much more of its time the other CPU has to be idle."""
_STAT: Final = Path("/proc/stat")
_TASKS: Final = Path("/proc/self/task")
_IDLE: Final = (3, 4)
"""Of the times in proc_stat(5): idle, and idle with a disk's answer on its way."""
_NICE: Final = 1
"""What makes room for us, unless we are as patient ourselves."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at a moment, all in seconds: `idle` of each CPU since the machine began, `own` of our processes."""

    at: float
    idle: Mapping[int, float]
    own: float


def idle_of(stat: str, ticks: int, *, patient: bool = False) -> dict[int, float]:
    """The idle seconds of each CPU in the text of /proc/stat; `ticks` are those of a second.

    `patient`: whether this process is niced itself.
    """
    places = _IDLE if patient else (_NICE, *_IDLE)
    lines = (line.split() for line in stat.splitlines() if line.startswith("cpu") and line[3:4].isdigit())
    return {int(name[3:]): sum(int(spent[place]) for place in places) / ticks for name, *spent in lines}


def better(here: int | None, before: Look, after: Look, near: Collection[int] = ()) -> int | None:
    """The CPU to move to; None to stay. With no CPU of our own yet, the most idle one, or one that is `near` the disk.

    To such a one there is a way back when nobody else needs it any more.
    """
    span = after.at - before.at
    shares = {cpu: (idle - before.idle[cpu]) / span for cpu, idle in after.idle.items() if cpu in before.idle and span}
    if not shares:
        return None
    own = (after.own - before.own) / span
    best = max(shares, key=lambda cpu: shares[cpu])
    nearest = max((cpu for cpu in shares if cpu in near), key=lambda cpu: shares[cpu], default=best)
    if here is None:
        # Where our own work was until now is not known: it must not speak against the CPU on which it may have been.
        return nearest if shares[best] - min(1, shares[nearest] + own) < GAIN else best
    if nearest in near and here not in near and 1 - shares[nearest] < CROWDED:
        return nearest
    mine = shares.get(here, 0.0)
    others = 1 - mine - own
    return best if others > CROWDED and shares[best] - mine > GAIN else None


class OneCpu(Rounds):
    """Keeps this process, and the processes that it started, on one of the CPUs that it may use.

    `here`: the one on which they are, once a `round` has chosen. `near`: those to prefer.
    """

    def __init__(self, every_ms: int = EVERY_MS, *, near: frozenset[int] = frozenset()) -> None:
        super().__init__("one-cpu", every_ms)
        self.here: int | None = None
        self.near = near
        self._may = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else frozenset[int]()
        self._before = self._look()

    async def round(self) -> int:
        """Look, and move if it is better elsewhere; 1 if they moved."""
        after = self._look()
        to = better(self.here, self._before, after, self.near)
        self._before = after
        if to is None:
            return 0
        for task in (*_tasks_of(_TASKS), *_children()):
            with suppress(OSError):  # It is over by now.
                os.sched_setaffinity(task, {to})
                if os.sched_getscheduler(task) == os.SCHED_OTHER:  # not what an operator chose
                    os.sched_setscheduler(task, os.SCHED_BATCH, os.sched_param(0))
        _log.debug("cpu_chosen", cpu=to)
        self.here = to
        return 1

    def count_failure(self, kind: str) -> None:
        """It is in the log; nothing that a metric could alarm about depends on it."""

    def _look(self) -> Look:
        idle = dict[int, float]()
        with suppress(OSError, ValueError, IndexError):
            patient = os.getpriority(os.PRIO_PROCESS, 0) > 0
            idle = idle_of(_STAT.read_text(), os.sysconf("SC_CLK_TCK"), patient=patient)
        own = time.process_time() + sum(_seconds_of(child) for child in _children())
        return Look(time.monotonic(), {cpu: spent for cpu, spent in idle.items() if cpu in self._may}, own)


def home_of(settings: Settings) -> OneCpu | None:
    """The home of a broker with these settings; None where it wants none. Raises `SettingsError` for its database."""
    if not settings.one_cpu:
        return None
    # PostgreSQL waits for its disk itself.
    return OneCpu(near=frozenset() if settings.postgres_url is not None else near_disk(settings.database_file))


@asynccontextmanager
async def together(home: OneCpu | None) -> AsyncIterator[None]:
    """Keep this process on one CPU while the block runs, from its beginning on; or leave it alone."""
    if home is None:
        yield
        return
    await home.round()
    home.start()
    try:
        yield
    finally:
        await home.stop()


def _tasks_of(folder: Path) -> Iterator[int]:
    with suppress(OSError):
        yield from [int(task.name) for task in folder.iterdir()]


def _children() -> Iterable[int]:
    """The processes that this one started, by the threads that did; their threads are theirs alone (one each)."""
    for task in _tasks_of(_TASKS):
        with suppress(OSError):
            yield from map(int, (_TASKS / str(task) / "children").read_text().split())


def _seconds_of(pid: int) -> float:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return 0.0
