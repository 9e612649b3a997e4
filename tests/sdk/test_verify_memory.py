"""What a resource server remembers: bounded, forgetting by time only, refusing when full."""

import pytest

from stepgrant import errors
from stepgrant.verify import ProcessMemory


def test_memory_of_epochs_forgets_by_time_and_refuses_when_full() -> None:
    memory = ProcessMemory(max_runs=2)
    assert memory.observe_epoch("a", 5, now_s=0)
    assert memory.observe_epoch("b", 1, now_s=1)
    assert not memory.observe_epoch("a", 4, now_s=329)
    with pytest.raises(errors.VerificationUnavailable) as caught:
        memory.observe_epoch("c", 1, now_s=329)
    assert caught.value.reason == "memory_full"
    assert memory.observe_epoch("a", 6, now_s=329)
    assert memory.observe_epoch("c", 1, now_s=331)  # `b` could be forgotten, `a` is newer
    assert not memory.observe_epoch("a", 5, now_s=400)


def test_memory_of_uses_forgets_by_time_and_refuses_when_full() -> None:
    memory = ProcessMemory(max_uses=2)
    assert memory.spend("a", by="ann", limit=1, forget_at_s=10, now_s=0)
    assert memory.spend("b", by="bob", limit=2, forget_at_s=5, now_s=0)
    assert memory.spend("b", by="bob", limit=2, forget_at_s=5, now_s=0)
    assert not memory.spend("b", by="bob", limit=2, forget_at_s=5, now_s=4)
    with pytest.raises(errors.VerificationUnavailable) as caught:
        memory.spend("c", by="cy", limit=1, forget_at_s=9, now_s=4)
    assert caught.value.reason == "memory_full"
    assert memory.spend("c", by="cy", limit=1, forget_at_s=9, now_s=5)
    assert not memory.spend("a", by="ann", limit=1, forget_at_s=10, now_s=9)
    assert memory.spend("a", by="ann", limit=1, forget_at_s=20, now_s=10)


def flood(memory: ProcessMemory, by: str, *, forget_at_s: float = 60, now_s: float = 0) -> int:
    """How many places one gets that takes all that it can get."""
    for number in range(10_000):
        try:
            assert memory.spend(f"{by}-{now_s:.0f}-{number}", by=by, limit=1, forget_at_s=forget_at_s, now_s=now_s)
        except errors.VerificationUnavailable:
            return number
    raise AssertionError


def test_who_floods_fills_its_own_share_and_not_the_memory() -> None:
    memory = ProcessMemory(max_uses=400)

    assert [flood(memory, by) for by in ("mallory", "trudy", "eve")] == [100, 75, 57]
    with pytest.raises(errors.VerificationUnavailable) as caught:
        memory.spend("one more", by="mallory", limit=1, forget_at_s=60, now_s=1)
    assert caught.value.reason == "share_full"
    assert [memory.spend(f"b{number}", by="bob", limit=1, forget_at_s=60, now_s=1) for number in range(40)] == [
        True
    ] * 40


def test_whatever_many_do_together_the_memory_is_bounded_and_forgets_nothing_early() -> None:
    memory = ProcessMemory(max_uses=50)
    taken = {f"by{number}": flood(memory, f"by{number}") for number in range(60)}

    assert sum(taken.values()) == 50
    replays = [f"{by}-0-{number}" for by, places in taken.items() for number in range(places)]
    # Full, and still each of them is known, whoever sends it: a replay is told to be one, not to come again.
    assert [memory.spend(key, by="eve", limit=1, forget_at_s=60, now_s=59) for key in replays] == 50 * [False]


def test_a_share_is_given_back_with_the_places() -> None:
    memory = ProcessMemory(max_uses=400)
    assert flood(memory, "mallory", forget_at_s=60) == 100
    assert flood(memory, "mallory", forget_at_s=120, now_s=59) == 0
    assert flood(memory, "mallory", forget_at_s=120, now_s=60) == 100
