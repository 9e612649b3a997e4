"""5,000 requests, half drawn by Schemathesis from our own description: nothing breaks, every answer is as described."""

from __future__ import annotations

import pytest

from security.fuzz import http_walk
from security.fuzz.http_stories import LONGEST, STORIES
from security.fuzz.http_teller import TELLINGS
from security.fuzz.http_unproven import USED_BEFORE, WAYS

SIZE = 5_000


@pytest.mark.timeout(900)
def test_every_answer_is_described_and_nobody_unproven_gets_one() -> None:
    result = http_walk.slice(0, SIZE)

    assert not result.violations
    assert result.counts["requests"] >= SIZE
    # Only what the walk itself makes sure of is asked for here: what is drawn goes where chance takes it.
    assert result.counts["drawn"] * 2 >= result.counts["requests"] - LONGEST
    assert result.counts["stories"] >= TELLINGS * len(STORIES)
    assert [way for way in (*WAYS, USED_BEFORE) if result.counts.get(f"refused: {way}", 0) < TELLINGS] == []
