"""What tests of the log share: its name, and its newest head as a stranger verifies it."""

from __future__ import annotations

from typing import Final

from stepgrant import tlog
from stepgrant_broker.ledger.sequencer import Sequencer

ORIGIN: Final = "broker.example/log"


async def signed_head(sequencer: Sequencer) -> tlog.Head:
    """The counted head, its signature verified with the log's keys."""
    assert sequencer.counted is not None
    head, note = tlog.read_signed_head(sequencer.counted.note, ORIGIN)
    assert len(note.verified(await sequencer.keys())) == 1
    assert (head.size, head.root) == (sequencer.counted.size, sequencer.counted.root)
    return head
