"""Where a test breaks a store, besides the plain points: with a batch half answered, and between a set's statements."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from stepgrant_broker.domain.state import Grant, Step
from stepgrant_broker.store.inbox import Job, answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepgrant_broker.domain.ports import Failpoints

AFTER_PROOF: Final = "store.after_proof"
AFTER_ENTRIES: Final = "store.after_entries"
AFTER_ROW: Final = "store.after_row"
AFTER: Final[Mapping[type[Any], str]] = {Step: "store.after_step", Grant: "store.after_grant"}
"""The point behind a row of this kind; `AFTER_ROW` behind the others."""

_log = logging.getLogger(__name__)


def quietly(failpoints: Failpoints, point: str) -> None:
    """Hit where nobody waits for an answer: what is raised is told to the log alone."""
    try:
        failpoints.hit(point)
    except Exception:  # noqa: BLE001 - nobody waits here, and the thread lives on
        _log.exception("a failpoint raised where nobody waits for an answer")


def answer_in_halves(failpoints: Failpoints, outcomes: Sequence[tuple[Job[Any], object]]) -> None:
    """Answer a batch, with `store.mid_batch` between the first half and the second, then `store.after_reply`."""
    half = len(outcomes) // 2
    if half:
        answer(outcomes[:half])
        quietly(failpoints, "store.mid_batch")
    answer(outcomes[half:])
    quietly(failpoints, "store.after_reply")


def in_pieces(asks: Sequence[Any], points: Sequence[str | None]) -> Iterator[tuple[Sequence[Any], str | None]]:
    """The statements of a round, cut behind each one that has a point: the pieces in order, each with its point."""
    start = 0
    for number, point in enumerate(points, 1):
        if point is not None:
            yield asks[start:number], point
            start = number
    if start < len(asks):
        yield asks[start:], None
