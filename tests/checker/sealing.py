"""What makes a ledger written by hand look like one: commitments, and entries in their places."""

from __future__ import annotations

import hashlib
from typing import Any

from checker.evidence import Record
from stepgrant.canonical import b64u, dumps


def c(value: object) -> str:
    """What stands for a commitment: equal values give equal ones."""
    return b64u(hashlib.sha256(dumps(value)).digest())  # type: ignore[arg-type]


def sealed(chain: str, entries: list[dict[str, Any]]) -> list[Record]:
    """The entries of one chain, each over the one before it."""
    sealed: list[Record] = []
    prev = bytes(32)
    for seq, entry in enumerate(entries):
        place = {"tenant": "acme", "run": chain or None, "seq": seq, "prev": b64u(prev), "salt": b64u(bytes(16))}
        data = dumps({**entry, **place})
        prev = hashlib.sha256(data).digest()
        sealed.append(Record("acme", chain, seq, prev, data))
    return sealed
