"""The kill matrix for `python -m soak`: cases drawn from a seed, on servers of its own."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import soak
from faults.hall import Hall, hall
from faults.lab import Services
from faults.points import Case, drawn
from faults.tales import Tale

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


def played(start: Callable[[Hall], Iterable[Future[Tale]]]) -> list[Tale]:
    """What was started in a hall, when all of it is over; `soak` hears of each."""
    done: list[Tale] = []
    with a_hall() as place:
        for tale in list(start(place)):
            done.append(tale.result())
            soak.progress(len(done))
    return done


def summed(tales: Sequence[Tale], counts: Counter[str]) -> soak.Result:
    """These, with what else was counted."""
    counts.update(runs=sum(len(tale.workmen) for tale in tales), kills=sum(tale.kills for tale in tales))
    violations = [f"{tale.case.name}: {text}" for tale in tales for text in tale.found]
    figures = {
        "longest_s": round(max((tale.seconds for tale in tales), default=0.0), 1),
        "lived_on_s": round(max((tale.lived_on_s for tale in tales), default=0.0), 1),
    }
    return soak.Result(dict(counts), violations, figures)


def play(cases: Sequence[Case]) -> soak.Result:
    """Play these."""
    tales = played(lambda place: [place.play(case) for case in cases])
    counts: Counter[Any] = Counter()
    for case, tale in zip(cases, tales, strict=True):
        reached = tale.did(case.point, case.action)
        counts["not reached"] += not reached
        for what in ("faults", case.action, f"{case.store} and {case.issuer}"):
            counts[what] += reached
    return summed(tales, counts)


def slice(seed: int, size: int) -> soak.Result:  # noqa: A001 - the one name that soak looks for
    """`size` cases that follow from the seed."""
    return play(drawn(seed, size))


def replay(name: str) -> soak.Result:
    """One case again. Raises `ValueError`."""
    return play([Case.read(name)])
