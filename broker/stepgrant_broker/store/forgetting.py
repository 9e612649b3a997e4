"""What passes with time: proof uses, stored answers and their bodies, dropped in small transactions.

Rules:
* Proofs and answers are found by walking over their keys (`statements.Walk`). One call walks a bounded part of a large
  table and the next goes on from there, so that forgetting never holds up what is to be remembered.
* A walk is of one process: replicas that walk beside each other only find less to drop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from stepgrant_broker.store.statements import Statements, Text, Walk

Run = Callable[[Text, tuple[Any, ...]], tuple[int, Sequence[Sequence[Any]]]]
"""Runs a statement inside the open transaction: how many rows it touched, and the rows that it gave."""

STRETCH: Final = 1000
STRETCHES: Final = 20
"""So many keys in a transaction, and so many transactions for a table in one call."""


class Forgetting:
    """Where the walks of one store stand."""

    def __init__(self, sql: Statements) -> None:
        self.sql = sql
        self._after: dict[Walk, tuple[str, ...]] = {}

    @property
    def walks(self) -> Sequence[Walk]:
        """The tables to walk."""
        return self.sql.walks

    def stretch(self, run: Run, walk: Walk, now: int) -> tuple[int, bool]:
        """Drop what is over among the next keys: how many, and whether the walk has come to the end."""
        after = self._after.get(walk, ("",) * walk.width)
        keys = {f"w_after_{name}": part for name, part in zip(walk.key, after, strict=True)}
        _, found = run(walk.end, walk.end.places({**keys, "w_many": STRETCH}))
        if not found:
            gone, _ = run(walk.drop_rest, walk.drop_rest.places({**keys, "w_now": now}))
            self._after.pop(walk, None)
            return gone, True
        until = {f"w_until_{name}": part for name, part in zip(walk.key, found[0], strict=True)}
        gone, _ = run(walk.drop, walk.drop.places({**keys, **until, "w_now": now}))
        self._after[walk] = tuple(found[0])
        return gone, False

    def bodies(self, run: Run, now: int) -> tuple[int, bool]:
        """Drop bodies of answers whose time is over: none that is counted, and whether all went."""
        text = self.sql.forget_payloads
        gone, _ = run(text, text.places({"w_now": now, "w_limit": STRETCH}))
        return 0, gone < STRETCH
