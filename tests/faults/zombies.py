"""Many schedules of zombies at once, on one site, and what is left of them when all have been played."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, Final

from checker.check import check
from checker.evidence import Evidence
from checker.reading import read_lines
from faults.schedules import LEASE_S, Actor, Schedule
from faults.sites import Site, site
from soak.result import Result
from stepgrant.receipt import read_event
from stepgrant_services import PostgresServer

TROUPES: Final = 3
ROLES: Final = ("worker", "worker", "rescuer")
OF_THE_BROKER: Final = {"grant_revoked", "run_parked"}
"""What may be written about an older epoch: the broker takes back what it held."""


@dataclass
class Company:
    """Some troupes at one site, and what they have played."""

    site: Site
    troupes: Sequence[list[Actor]]
    played: list[Schedule] = field(default_factory=list)
    free: SimpleQueue[list[Actor]] = field(default_factory=SimpleQueue)

    def __post_init__(self) -> None:
        for troupe in self.troupes:
            self.free.put(troupe)

    def play(self, seed: int) -> Schedule:
        """Play one schedule with the next free troupe."""
        troupe = self.free.get()
        schedule = Schedule(seed, self.site, troupe)
        self.played.append(schedule)
        try:
            schedule.play()
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            schedule.wrong.append(f"it could not be played to its end: {error!r}")
        finally:
            self.free.put(troupe)
        return schedule

    def broken(self) -> list[str]:
        """Everything that does not hold, after all that was played."""
        actors = [actor for troupe in self.troupes for actor in troupe]
        evidence = self.site.evidence(*[read_lines(actor.heard) for actor in actors if actor.heard.exists()])
        seeds = {schedule.run: schedule.seed for schedule in self.played}
        found = [f"schedule {one.seed}: {wrong}; {one.told}" for one in self.played for wrong in one.wrong]
        found += [f"schedule {seeds.get(one.run)}: {one}" for one in check(evidence)]
        return found + [f"schedule {seeds.get(run)}: {text}" for run, text in outlived(evidence)]


def outlived(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """What was written for an epoch after a newer one had begun, by anyone but the broker; with its run."""
    for (_, run), records in evidence.chains():
        newest = 0
        for event in (read_event(record.data) for record in sorted(records, key=lambda record: record.seq)):
            if event.epoch is not None and event.epoch < newest and event.type not in OF_THE_BROKER:
                yield run, f"entry {event.seq} ({event.type}) is of epoch {event.epoch} after {newest} had begun"
            newest = max(newest, event.epoch or 0)


@contextmanager
def company(at: Site, troupes: int) -> Iterator[Company]:
    """Troupes that play until the block ends."""
    with ExitStack() as stack:
        made = []
        for number in range(troupes):
            heard = [at.folder / f"heard-{number}-{place}" for place in range(len(ROLES))]
            made.append([
                Actor(stack.enter_context(at.puppet(file, who)), file, who)
                for file, who in zip(heard, ROLES, strict=True)
            ])  # fmt: skip
        yield Company(at, made)


@contextmanager
def staged(folder: Path, postgres: PostgresServer | None = None, troupes: int = TROUPES) -> Iterator[Company]:
    """A company at one broker on SQLite, or at two on PostgreSQL."""
    url = postgres.create_database() if postgres is not None else None
    brokers = 1 if url is None else 2
    lease: dict[str, Any] = {"lease_ms": int(LEASE_S * 1000), "sweep_ms": 200}
    with site(folder, brokers=brokers, database_url=url, **lease) as at, company(at, troupes) as made:
        yield made


def slice(seed: int, size: int) -> Result:  # noqa: A001 - the one name that soak looks for
    """`size` schedules; an even seed on SQLite, an odd one with two brokers on PostgreSQL."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="zombies-")))
        server = stack.enter_context(PostgresServer(options={"fsync": "off"})) if seed % 2 else None
        playing = stack.enter_context(staged(folder, server))
        with ThreadPoolExecutor(TROUPES) as pool:
            list(pool.map(playing.play, range(seed * size, (seed + 1) * size)))
        zombies = sum(len(schedule.zombies) for schedule in playing.played)
        return Result({"schedules": size, "zombies": zombies}, playing.broken())
