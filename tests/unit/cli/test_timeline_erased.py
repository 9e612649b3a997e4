"""How the timeline tells that a run was erased."""

from __future__ import annotations

from typing import Any

import pytest

from stepgrant import receipt
from stepgrant.canonical import dumps
from stepgrant.cli import timeline
from stories import Run


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"by": ("person", "Ada"), "body": {"operator": "opr_1"}}, "Ada erased what the run's commitments stand for"),
        (
            {"by": ("broker", None), "body": {}, "cause": "retention"},
            "the values of this run were erased: their time of keeping was over",
        ),
    ],
)
def test_an_erasure_says_whose_it_was(how: dict[str, Any], said: str) -> None:
    run = Run()
    run.opened()
    run.add(1, "run_ended", outcome={"status": "completed"}, body={"status": "completed"})
    run.add(2, "run_erased", **how)
    verified = receipt.verify(dumps({**run.receipt(), "complete": True}), run.book.jwks)
    blocks = timeline.tell(verified.events).blocks
    assert blocks[-1].lines[-1].text == said
