"""The kill matrix for `python -m soak`: cases drawn from a seed, on servers of its own."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from faults.hall import Hall, hall
from faults.lab import Services
from faults.points import Case, drawn
from faults.tales import Tale
from soak import result as soak

if TYPE_CHECKING:
    from concurrent.futures import Future

POSTGRES: Final = {"fsync": "off", "max_connections": "200"}
"""A killed process loses nothing by it."""


@contextmanager
def a_hall() -> Iterator[Hall]:
    """A hall with a Vault and a PostgreSQL of its own."""
    from stepgrant_services import PostgresServer, VaultServer  # noqa: PLC0415 - in deploy/, for soak alone

    with (
        tempfile.TemporaryDirectory(prefix="stepgrant-soak-") as folder,
        PostgresServer(options=POSTGRES) as postgres,
        VaultServer() as vault,
        hall(Path(folder), Services(vault, postgres)) as made,
    ):
        yield made


@dataclass
class Played:
    """The tales of one hall, and what was not dead after all of them."""

    tales: list[Tale]
    unsettled: list[str]


def played(start: Callable[[Hall], Iterable[Future[Tale]]], *, each: int = 1) -> Played:
    """What was started in a hall, when all of it is over; `soak` hears of it, and each tale counts so much there."""
    done: list[Tale] = []
    with a_hall() as place:
        for tale in list(start(place)):
            done.append(tale.result())
            if each:
                soak.progress(each * len(done))
        return Played(done, place.settle())


def summed(all_played: Sequence[Played], counts: Counter[str]) -> soak.Result:
    """These, with what else was counted."""
    tales = [tale for one in all_played for tale in one.tales]
    counts.update(runs=sum(len(tale.workmen) for tale in tales), kills=sum(tale.kills for tale in tales))
    violations = [f"{tale.case.name}: {text}" for tale in tales for text in tale.found]
    violations += [f"after all of them: {text}" for one in all_played for text in one.unsettled]
    figures = {
        "longest_s": round(max((tale.seconds for tale in tales), default=0.0), 1),
        "lived_on_s": round(max((tale.lived_on_s for tale in tales), default=0.0), 1),
    }
    return soak.Result(dict(counts), violations, figures)


def play(cases: Sequence[Case]) -> soak.Result:
    """Play these."""
    done = played(lambda place: [place.play(case) for case in cases])
    counts: Counter[str] = Counter()
    for case, tale in zip(cases, done.tales, strict=True):
        reached = tale.did(case.point, case.action)
        counts["not reached"] += not reached
        for what in ("faults", case.action, f"{case.store} and {case.issuer}"):
            counts[what] += reached
    return summed([done], counts)


def slice(seed: int, size: int) -> soak.Result:  # noqa: A001 - the one name that soak looks for
    """`size` cases that follow from the seed."""
    return play(drawn(seed, size))


def replay(name: str) -> soak.Result:
    """One case again. Raises `ValueError`."""
    return play([Case.read(name)])
