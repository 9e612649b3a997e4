"""What a resource server must remember: the newest epoch of each run, and what was used already.

Rules:

* Memories are bounded, and a full one refuses. What it would have to forget is what stops a zombie or a replay.
* Nobody can fill the memory of uses for others: a place is taken only by who has fewer than a third of those that are
  free. Alone, one comes to a quarter of all; each that floods beside it leaves three quarters of what was free. Who has
  none gets one as long as there is any.
* They forget by time only, and only what can no longer be presented. A token of an older epoch was made before the
  newer epoch began, so it has expired one token lifetime after the newer epoch was first seen here.
* `ProcessMemory` is one process's own, and for `redeem: required` the broker decides in the end. A server of several
  processes that also serves `redeem: optional` gives the verifier a `Memory` of its own over a shared store.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from typing import Final, Protocol

from stepgrant._verification_errors import VerificationUnavailable

SHARE: Final = 3
"""One may take a place while it has fewer than this part (a third) of the free ones."""
EPOCH_KEPT_S: Final = 330
"""300 s of token life, leeway on both clocks, and some."""


class Memory(Protocol):
    """What a verifier remembers; may be kept in a shared or durable store. Both calls must be atomic."""

    def observe_epoch(self, run_id: str, epoch: int, *, now_s: float) -> bool:
        """False if a newer epoch of the run was seen, else remember this one. Called for verified grants only."""
        ...

    def spend(self, key: str, *, by: str, limit: int, forget_at_s: float, now_s: float) -> bool:
        """False if `key` was spent `limit` times already, else count one more use.

        `by` is whose place it takes: the workload of a verified grant (`client_id`), which makes as many keys as it
        likes. A bounded store gives each a share.
        """
        ...


class ProcessMemory:
    """The memory of this process. A full one raises `VerificationUnavailable`."""

    def __init__(self, *, max_runs: int = 100_000, max_uses: int = 200_000) -> None:
        self._max_runs = max_runs
        self._max_uses = max_uses
        self._newest: OrderedDict[str, tuple[int, float]] = OrderedDict()  # in the order in which they are forgotten
        self._uses: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._ends: list[tuple[float, str, str]] = []
        self._lock = threading.Lock()

    def observe_epoch(self, run_id: str, epoch: int, *, now_s: float) -> bool:
        """As `Memory`."""
        with self._lock:
            known = self._newest.get(run_id)
            if known is not None and epoch <= known[0]:
                return epoch == known[0]
            if known is None and len(self._newest) >= self._max_runs:
                self._forget_runs(now_s)
            self._newest[run_id] = (epoch, now_s + EPOCH_KEPT_S)
            self._newest.move_to_end(run_id)
            return True

    def _forget_runs(self, now_s: float) -> None:
        while self._newest and next(iter(self._newest.values()))[1] <= now_s:
            self._newest.popitem(last=False)
        if len(self._newest) >= self._max_runs:
            raise VerificationUnavailable("too many runs at once to remember", reason="memory_full")

    def spend(self, key: str, *, by: str, limit: int, forget_at_s: float, now_s: float) -> bool:
        """As `Memory`."""
        with self._lock:
            self._forget_uses(now_s)
            used = self._uses.get(key, 0)
            if used >= limit:
                return False
            if not used:
                self._take_place(by)
                heapq.heappush(self._ends, (forget_at_s, key, by))
            self._uses[key] = used + 1
            return True

    def _forget_uses(self, now_s: float) -> None:
        while self._ends and self._ends[0][0] <= now_s:
            _, key, by = heapq.heappop(self._ends)
            del self._uses[key]
            self._held[by] -= 1
            if not self._held[by]:
                del self._held[by]

    def _take_place(self, by: str) -> None:
        held, free = self._held.get(by, 0), self._max_uses - len(self._uses)
        if not free:
            raise VerificationUnavailable("too many uses at once to remember", reason="memory_full")
        if held and held * SHARE >= free:
            raise VerificationUnavailable("too many uses at once by this sender", reason="share_full")
        self._held[by] = held + 1
