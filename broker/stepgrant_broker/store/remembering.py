"""What this process knows of the runs that it opened, so that a step of theirs is decided without a look.

Rules:
* A recollection may be old: others write, too. It is good for a decision only because the decision's commit compares
  the chain's length, the tenant's guard, the proof and the stored answer; whoever refuses by it has to look first
  (`usecases.transact`).
* Only runs whose every step is known are remembered: from their first commit on, as long as each commit follows the
  last one that was seen. What is missing is then known to be missing.
* Only plain cases are recalled: a run that is held in its first epoch and has no principal, a step without outcome and
  without approval, no answer to this Idempotency-Key, no kill switch in the tenant. No payload is kept, and no key but
  wrapped ones.
* It is bounded by the names that it holds; the run that was longest not asked for goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

from stepgrant_broker.domain.refusals import StoreRefusal
from stepgrant_broker.domain.state import Approval, Grant, Run, RunState, Step, View
from stepgrant_broker.domain.writes import ChainKey, Loaded

if TYPE_CHECKING:
    from stepgrant_broker.domain.writes import Query, Tenant, WriteSet

NAMES_MAX: Final = 10_000
"""Names of runs, steps and answers together. With what is kept behind them, about a kilobyte each for small values."""
RUN_MAX: Final = 4_000
"""Of one run."""
RECENT: Final = 32
"""Steps of a run that are kept whole; of older ones only the names."""
REFUSED_MAX: Final = 3
"""So many refusals in a row are not calls beside each other: somebody else writes to this run."""


SEEN_S: Final = 2.0
"""For so long the time that a database told is carried on by this process's own; then it is asked again."""


class SeenClock:
    """A database's clock, as far as its last answers tell. It may be ahead of it by the time that an answer took."""

    def __init__(self) -> None:
        self._told, self._asked_at = 0, float("-inf")

    def saw(self, told: int, asked_at: float) -> None:
        """It said this (ms) to who asked then (monotonic seconds)."""
        if asked_at > self._asked_at:
            self._told, self._asked_at = told, asked_at

    def now(self) -> int | None:
        """The present in ms; `None` when the last answer is too old."""
        since = monotonic() - self._asked_at
        return self._told + int(since * 1000) if since <= SEEN_S else None


class _Remembered:
    """One run. `names`: its own, all its steps', all scopes answered in it. `steps`: the newest, with grants."""

    __slots__ = ("key", "lease_until", "names", "refused", "run", "steps")

    def __init__(self, run: Run, key: ChainKey) -> None:
        self.run = run
        self.key = key
        self.lease_until = self.refused = 0
        self.names = {run.id}
        self.steps: OrderedDict[str, tuple[Step, Mapping[str, Grant]]] = OrderedDict()

    def take_step(self, step: Step) -> None:
        """A new one, or a changed one that is kept whole; of an older one not all grants would be known."""
        if step.key in self.steps or step.key not in self.names:
            _, grants = self.steps.pop(step.key, (step, {}))
            self.steps[step.key] = (step, grants)
            self.names.add(step.key)


class Memory:
    """Of one store. `time` is the store's clock, or what is known of it. All methods belong to one event loop."""

    def __init__(self, time: Callable[[], int | None]) -> None:
        self._time = time
        self._runs: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        self._tenants: dict[str, tuple[Tenant, ChainKey | None]] = {}
        self._names = 0
        self._moves = 0

    async def looked_up(self, query: Query, look: Awaitable[Loaded]) -> Loaded:
        """What the look shows, which is remembered in part."""
        since = self._moves
        found = await look
        # Of a tenant that moved meanwhile this may be old.
        if since == self._moves and not found.quarantines and (query.tenant, query.run) in self._runs:
            self._tenants[query.tenant] = (found.tenant, found.tenant_key)
        return found

    async def after(self, writes: WriteSet, commit: Awaitable[object]) -> None:
        """Let the set be committed, and remember what came of it."""
        self._moving(writes)
        try:
            await commit
        except StoreRefusal:
            self._refused(writes)
            raise
        except BaseException:
            # Nobody knows what became of it; also of a caller who is gone, whose set was given.
            self._moving(writes)
            self._forget((writes.tenant, writes.run or ""))
            raise
        self._moving(writes)
        self._committed(writes)

    def recall(self, query: Query) -> Loaded | None:
        """What a look would show, unless others wrote meanwhile; `None` for all that is not plainly known."""
        known = self._known(query)
        tenant, now = self._tenants.get(query.tenant), self._time()
        if known is None or tenant is None or now is None or query.step is None or query.answer in known.names:
            return None
        step = known.steps.get(query.step)
        if step is None and query.step in known.names:
            return None
        view = View(known.run)
        if step is not None:
            if step[0].result_c is not None or step[0].error_c is not None:
                return None
            view = View(known.run, {query.step: step[0]}, step[1])
        return Loaded(now, tenant[0], view, known.lease_until, known.key, tenant[1])

    def _known(self, query: Query) -> _Remembered | None:
        if query.run is None or query.also or query.unfinished or query.sought is not None:
            return None
        if query.run_key is not None or query.grant is not None or query.approval is not None:
            return None
        place = (query.tenant, query.run)
        known = self._runs.get(place)
        if known is not None:
            self._runs.move_to_end(place)
        return known

    def _moving(self, writes: WriteSet) -> None:
        """What the set may change of a tenant is not known until somebody looks."""
        if writes.run is None or writes.raise_guard:
            self._moves += 1
            self._tenants.pop(writes.tenant, None)

    def _refused(self, writes: WriteSet) -> None:
        """Others were faster: in this process, or elsewhere."""
        self._tenants.pop(writes.tenant, None)
        known = self._runs.get((writes.tenant, writes.run or ""))
        if known is not None:
            known.refused += 1
            if known.refused >= REFUSED_MAX:
                self._forget((writes.tenant, known.run.id))

    def _committed(self, writes: WriteSet) -> None:
        if writes.run is None:
            return
        place = (writes.tenant, writes.run)
        known = self._begun(writes) if writes.expect_seq == 0 else self._runs.get(place)
        if known is None:
            return
        if not self._follows(known, writes):
            self._forget(place)
            return
        before, known.refused = len(known.names), 0
        self._take(known, writes)
        self._names += len(known.names) - before
        if len(known.names) > RUN_MAX:
            self._forget(place)
        while self._names > NAMES_MAX:
            self._forget(next(iter(self._runs)))

    def clear(self) -> None:
        """Remember nothing: something was changed by other means than a write set."""
        self._runs.clear()
        self._tenants.clear()
        self._names = 0
        self._moves += 1

    def _begun(self, writes: WriteSet) -> _Remembered | None:
        run = next((row for row in writes.rows if isinstance(row, Run)), None)
        key = next((row for row in writes.rows if isinstance(row, ChainKey)), None)
        if run is None or key is None or run.principal_c is not None:
            return None
        known = self._runs[writes.tenant, run.id] = _Remembered(run, key)
        self._names += len(known.names)
        return known

    def _follows(self, known: _Remembered, writes: WriteSet) -> bool:
        """Whether the run is still a plain one, and nothing stands between this set and the last one."""
        if writes.destroy or writes.erase or (writes.expect_seq and writes.expect_seq != known.run.seq):
            return False
        for row in writes.rows:
            if isinstance(row, Approval) or (
                isinstance(row, Run) and (row.state is not RunState.OPEN or row.epoch > 1)
            ):
                return False
        return True

    def _take(self, known: _Remembered, writes: WriteSet) -> None:
        if writes.lease_until is not None:
            known.lease_until = writes.lease_until
        if writes.answer is not None:
            known.names.add(writes.answer.scope)
        for row in writes.rows:
            if isinstance(row, Run):
                known.run = row
            elif isinstance(row, Step):
                known.take_step(row)
        for row in writes.rows:
            if isinstance(row, Grant) and row.step in known.steps:
                step, grants = known.steps[row.step]
                known.steps[row.step] = (step, {**grants, row.jti: row})
        while len(known.steps) > RECENT:
            known.steps.popitem(last=False)

    def _forget(self, place: tuple[str, str]) -> None:
        known = self._runs.pop(place, None)
        if known is not None:
            self._names -= len(known.names)
