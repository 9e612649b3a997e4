"""How long a wait is and how its pauses grow, by a clock of the test: a busy machine changes nothing of it."""

from __future__ import annotations

import pytest

from stepgrant._timeouts import Patience


class Waiting:
    """Waits as long as it is told to, in no time."""

    def __init__(self, seconds: float) -> None:
        self.now = 1000.0
        self.patience = Patience(seconds, lambda: self.now)
        self.pauses: list[float] = []

    def out(self, told: float | None = None) -> list[float]:
        """All pauses until there is no time for another."""
        while (pause := self.patience.pause(told)) is not None:
            self.pauses.append(pause)
            self.now += pause
        return self.pauses


def test_pauses_grow_and_end_before_the_patience_does() -> None:
    waiting = Waiting(0.4)
    pauses = waiting.out()
    assert 3 <= len(pauses) <= 4
    assert sum(pauses) < 0.4
    for number, pause in enumerate(pauses):
        assert 0.025 * 2**number <= pause <= 0.05 * 2**number


def test_no_pause_is_longer_than_two_seconds() -> None:
    assert max(Waiting(60).out()) <= 2.0


def test_what_the_broker_asks_for_is_waited_and_a_little_more() -> None:
    pauses = Waiting(10).out(told=1.0)
    assert all(1.0 < pause <= 1.5 for pause in pauses)
    assert 6 <= len(pauses) <= 9


@pytest.mark.parametrize("told", [None, 5.0])
def test_it_can_be_shortened_and_not_lengthened(told: float | None) -> None:
    waiting = Waiting(60)
    waiting.patience.shorten(0.01)
    waiting.patience.shorten(1000)
    assert waiting.patience.left == pytest.approx(0.01)
    assert waiting.out(told) == []
    waiting.now += 1
    assert waiting.patience.left == 0.0
