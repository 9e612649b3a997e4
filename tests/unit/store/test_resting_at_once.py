"""Notes on PostgreSQL, where each statement is a round trip: one statement for all of a kind."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.store import resting
from stepgrant_broker.store.postgres_sql import NOTE_OVER, NOTE_REST, READS
from stepgrant_broker.store.resting import PORTION, START, Notes
from stepgrant_broker.store.sqlite import SQL
from stepgrant_broker.store.statements import Text


def test_a_portion_is_one_statement_for_each_kind() -> None:
    over = tuple(("acme", f"run_{number}", 1) for number in range(PORTION))
    rest = (("acme", "run_a", 7, 1_000), ("globex", "run_b", 8, 2_000))
    given: list[tuple[Text, tuple[Any, ...]]] = []

    def run(text: Text, places: tuple[Any, ...]) -> tuple[int, list[Any]]:
        given.append((text, places))
        return 2, []

    assert resting.note(READS, run, Notes(over, rest, START)) == 4
    assert given == [
        (NOTE_OVER, (("acme",) * PORTION, tuple(id_ for _, id_, _ in over), ("1",) * PORTION)),
        (NOTE_REST, (("acme", "globex"), ("run_a", "run_b"), ("7", "8"), ("1000", "2000"))),
    ]
    given.clear()
    assert resting.note(READS, run, Notes((), (), START)) == 0
    assert given == []
    # SQLite is in this process: its statements are plain, one for each note.
    assert resting.note(SQL, run, Notes(over, rest, START)) == 2 * len(given) == 2 * (PORTION + 2)
