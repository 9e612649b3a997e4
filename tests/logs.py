"""What tests of the log share: its name, its newest head as a stranger verifies it, and a store that goes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from stepgrant import tlog
from stepgrant_broker.ledger.sequencer import Sequencer

ORIGIN: Final = "broker.example/log"
Back = Callable[[], None]


async def signed_head(sequencer: Sequencer) -> tlog.Head:
    """The counted head, its signature verified with the log's keys."""
    assert sequencer.counted is not None
    head, note = tlog.read_signed_head(sequencer.counted.note, ORIGIN)
    assert len(note.verified(await sequencer.keys())) == 1
    assert (head.size, head.root) == (sequencer.counted.size, sequencer.counted.root)
    return head


def copied(tmp_path: Path) -> Back:
    """Copy the database; what is returned puts the copy back, while the store is open."""
    live, kept = tmp_path / "log.db", tmp_path / f"kept-{len([*tmp_path.glob('kept-*')])}.db"
    backed_up(live, kept)
    return lambda: backed_up(kept, live)


def backed_up(database: Path, copy: Path) -> None:
    """Copy a database that may be open, into one that may be."""
    with closing(sqlite3.connect(database)) as here, closing(sqlite3.connect(copy)) as there:
        here.backup(there)
