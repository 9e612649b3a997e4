"""5,000 requests that Schemathesis draws from our own description: nothing breaks, and every answer is as described."""

from __future__ import annotations

import pytest

from security.fuzz import http_walk

SIZE = 5_000


@pytest.mark.timeout(900)
def test_every_answer_is_described_and_nobody_unproven_gets_one() -> None:
    result = http_walk.slice(0, SIZE)

    assert not result.violations
    assert result.counts["requests"] >= SIZE
    assert result.counts["corrupted"] > SIZE // 8
    assert result.counts["2xx"] > SIZE // 8  # it gets past the door, and deep into runs
    for reached in ("/v1/runs/{run}/steps/{step}/begin", "/v1/runs/{run}/steps/{step}/complete", "/v1/runs"):
        assert result.counts[f"200 POST {reached}"] > 0
