"""What a worker takes up, and when: pauses, poison, whom it leaves alone. Pure but for a clock and a list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import stepgrant
from stepgrant._outcomes import ListedRun, RunPage
from stepgrant._worker_find import Backoff, Finder

NOW = 1_800_000_000_000


def listed(number: int = 1, **more: Any) -> ListedRun:  # noqa: ANN401 - members
    given = {"tries": 0, "park_reason": "queued", "resumable": True, "resumable_at": NOW, **more}
    return ListedRun(id=f"run_{number}", key=f"k{number}", agent="agent", state="parked", epoch=1, **given)


class Listed(Finder):
    """A finder over pages of a test."""

    def __init__(self, *pages: list[ListedRun], now: int = NOW) -> None:
        self.time = 0.0
        self.asked = 0
        self.pages = [RunPage(runs=page, now=now, next=str(number)) for number, page in enumerate(pages, 1)]

        @stepgrant.agent("agent")
        def work(_: object) -> None: ...

        super().__init__(work, Backoff(), clock=lambda: self.time)

    def _pages(self) -> Iterator[RunPage]:
        for page in self.pages:
            self.asked += 1
            yield page

    def keys(self, most: int = 10, busy: frozenset[str] = frozenset()) -> set[str]:
        return {run.key for run in self.find(most, busy)}


@pytest.mark.parametrize(
    ("reason", "tries", "pause"),
    [
        ("queued", 0, 0), ("lease_lapsed", 1, 0), (None, 1, 0), ("lease_lapsed", 2, 1), ("lease_lapsed", 4, 4),
        ("error", 0, 1), ("error", 1, 1), ("error", 2, 2), ("error", 4, 8), ("awaiting_approval", 1, 0),
        ("requested", 3, 2), ("error", 99, 300), ("lease_lapsed", 10_000, 300),
    ],
)  # fmt: skip
def test_pauses_double_and_end_somewhere(reason: str | None, tries: int, pause: float) -> None:
    run = listed(park_reason=reason, tries=tries)
    assert Backoff().pause(run) == pause
    due = NOW + int(pause * 1000)
    assert Backoff().due(run, due)
    assert not Backoff().due(run, due - 1)


@pytest.mark.parametrize(
    "reason", ["error", "lease_lapsed", None, "queued", "requested", "awaiting_approval", "in_doubt"]
)
def test_only_what_ended_badly_is_poison(reason: str | None) -> None:
    badly = reason in {"error", "lease_lapsed", None}
    assert Backoff(max_tries=3).is_poison(listed(park_reason=reason, tries=3)) is badly
    assert not Backoff(max_tries=3).is_poison(listed(park_reason=reason, tries=2))


def test_what_is_not_due_busy_or_over_does_not_hide_what_comes_later() -> None:
    waiting = [listed(n, park_reason="error", tries=9) for n in range(3)]
    finder = Listed(waiting, [listed(4), listed(5, resumable_at=None)], [listed(6), listed(7)])
    assert finder.keys(busy=frozenset({"run_6"})) == {"k4", "k7"}
    assert finder.asked == 3


def test_it_stops_reading_when_it_has_enough_and_takes_from_the_front() -> None:
    finder = Listed([listed(n) for n in range(10)], [listed(99)])
    seen = {key for _ in range(60) for key in finder.keys(most=2)}
    assert seen == {"k0", "k1", "k2", "k3"}
    assert finder.asked == 60
    assert len(finder.find(2, ())) == 2


def test_who_was_refused_is_left_alone_longer_each_time() -> None:
    finder = Listed([listed(1), listed(2)])
    assert [finder.leave_alone("run_1") for _ in range(3)] == [1, 2, 4]
    assert finder.keys() == {"k2"}
    finder.time = 3.9
    assert finder.keys() == {"k2"}
    finder.time = 4.0
    assert finder.keys() == {"k1", "k2"}
    finder.allowed("run_1")
    assert finder.leave_alone("run_1") == 1


def test_it_does_not_remember_for_ever_but_goes_on_counting_for_whom_it_does() -> None:
    finder = Listed([])
    for number in range(5_000):
        finder.time += 10  # so that what was refused before is due again
        finder.leave_alone(f"run_{number}")
    assert len(finder._left_alone) == 4_096
    assert finder.leave_alone("run_4999") == 2
    assert finder.leave_alone("run_0") == 1
    assert len(finder._left_alone) == 4_096


def test_who_is_refused_for_ever_is_tried_seldom_but_not_never() -> None:
    finder, tries = Listed([listed(1)]), 0
    while finder.time < 86_400:
        if finder.keys():
            finder.leave_alone("run_1")
            tries += 1
        finder.time += 0.5
    assert 86_400 / 300 <= tries <= 86_400 / 300 + 10
