"""The table of manipulations: each changes what was stolen and says exactly what has to be found, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from security.tamper.stolen import TENANT, Stolen
from stepgrant_broker.ledger import findings
from stepgrant_broker.ledger.findings import Code, Place

Expected: TypeAlias = Iterable[tuple[Code, Place]]
Act: TypeAlias = Callable[[Stolen], Expected]


@dataclass(frozen=True)
class Manipulation:
    """What the thief does, in words; `keys`: he also has the key that signs heads, so only others can find him."""

    name: str
    act: Act


TABLE: Final[list[Manipulation]] = []


def manipulation(act: Act) -> Act:
    """Enter a function into the table; its name, in words, is the row's."""
    TABLE.append(Manipulation(getattr(act, "__name__", "").replace("_", " "), act))
    return act


def entry(stolen: Stolen, seq: int, *, run: str | None = "") -> Place:
    """An entry of the run whose life has all types; `run=None`: of the tenant's own chain."""
    return findings.entry(TENANT, stolen.victim.run if run == "" else run, seq)


def flipped(data: bytes, at: int = -1) -> bytes:
    """One bit turned around."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
