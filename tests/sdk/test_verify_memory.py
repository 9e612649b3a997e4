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
    assert memory.spend("a", limit=1, forget_at_s=10, now_s=0)
    assert memory.spend("b", limit=2, forget_at_s=5, now_s=0)
    assert memory.spend("b", limit=2, forget_at_s=5, now_s=0)
    assert not memory.spend("b", limit=2, forget_at_s=5, now_s=4)
    with pytest.raises(errors.VerificationUnavailable) as caught:
        memory.spend("c", limit=1, forget_at_s=9, now_s=4)
    assert caught.value.reason == "memory_full"
    assert memory.spend("c", limit=1, forget_at_s=9, now_s=5)
    assert not memory.spend("a", limit=1, forget_at_s=10, now_s=9)
    assert memory.spend("a", limit=1, forget_at_s=20, now_s=10)
