"""The embedded `PolicyEngine`: regorus in a small process of its own, started and ended by this one.

Rules:
* A query has a deadline that includes its wait. One that overruns is answered `PolicyUnavailable` and its process is
  killed; another one takes over the queries that still wait. A process that ends by itself is replaced the same way.
* Replacing is bounded too: after several losses in short time every call is `PolicyUnavailable` for a moment.
* The queue is bounded: more callers than it holds are `PolicyUnavailable` at once.
* A reload takes the place of the present policy only when it compiled, passed all checks and answered the samples. A
  broken edit leaves the present policy in force.
* All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.ports import Evaluation
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.channel import Channel, Deadlines, Query
from stepgrant_broker.policy.engine_process import Answer, EngineFailed, EngineProcess
from stepgrant_broker.policy.probes import proven
from stepgrant_broker.policy.rego import ENGINE

DEADLINE_S: Final = 1.0
PROBE_DEADLINE_S: Final = 2.0
MAX_WAITING: Final = 256
MAX_LOSSES: Final = 8
LOSS_WINDOW_S: Final = 10.0
RETRY_AFTER_MS: Final = 1000


class EmbeddedEngine:
    """`PolicyEngine` on regorus. Before the first `load`, and after `close`, every call is `PolicyUnavailable`."""

    def __init__(
        self,
        *,
        decision_ids: Callable[[], str],
        deadline_s: float = DEADLINE_S,
        probe_deadline_s: float = PROBE_DEADLINE_S,
        max_waiting: int = MAX_WAITING,
        max_losses: int = MAX_LOSSES,
        loss_window_s: float = LOSS_WINDOW_S,
    ) -> None:
        self._decision_ids = decision_ids
        self._deadline_s = deadline_s
        self._probe_deadline_s = probe_deadline_s
        self._max_waiting = max_waiting
        self._loss_window_s = loss_window_s
        self._losses: deque[float] = deque(maxlen=max_losses)
        self._active: tuple[str, Bundle] | None = None
        self._channel: Channel | None = None
        self._deadlines = Deadlines()
        self._held: list[Query] = []
        """Queries that wait for a process."""
        self._waiting = 0
        self._closed = False
        self._loading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def revision(self) -> str | None:
        """The revision that decides now."""
        return self._active[0] if self._active is not None else None

    async def load(self, revision: str, bundle: Bundle) -> None:
        """Decide by this policy from now on.

        Raises `PolicyInvalid` and then changes nothing; `PolicyUnavailable` after `close`.
        """
        async with self._loading:
            process = await asyncio.to_thread(proven, bundle, revision, deadline_s=self._probe_deadline_s)
            if self._closed:
                await asyncio.to_thread(process.end)
                raise PolicyUnavailable("the policy engine is closed")
            before, self._active = self._channel, (revision, bundle)
            await self._connect(process)
            if before is not None:
                before.retire()

    async def evaluate(self, policy_input: bytes) -> Evaluation:
        """As the port says; `revision` is that of the policy which answered."""
        if self._active is None:
            raise PolicyUnavailable("no policy is loaded", retry_after_ms=RETRY_AFTER_MS)
        if self._waiting >= self._max_waiting:
            raise PolicyUnavailable("too many decisions are waiting", retry_after_ms=RETRY_AFTER_MS)
        if self._channel is None:
            self._replace()
        loop = asyncio.get_running_loop()
        query = Query(policy_input, self._deadline_s, loop)
        self._deadlines.watch(query, loop)
        self._waiting += 1
        try:
            if self._channel is not None:
                self._channel.send(query)
            else:
                self._held.append(query)
            answer = await query.answered
        finally:
            self._waiting -= 1
        if answer.error is not None:
            raise PolicyUnavailable(answer.error, retry_after_ms=RETRY_AFTER_MS)
        return Evaluation(answer.raw, answer.revision, self._decision_ids(), ENGINE)

    async def close(self) -> None:
        """End the process; whoever still waits gets `PolicyUnavailable`."""
        self._closed, self._active = True, None
        channel, self._channel = self._channel, None
        self._refuse(self._held, "the policy engine is closed")
        if channel is not None:
            channel.close()
            await channel.gone.wait()
        self._deadlines.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _connect(self, process: EngineProcess) -> None:
        loop = asyncio.get_running_loop()
        channel = Channel(process, self._lost, self._ended)
        await loop.create_unix_connection(lambda: channel, sock=process.socket)
        self._channel = channel
        held, self._held = self._held, []
        for query in held:
            if not query.answered.done():
                channel.send(query)

    def _lost(self, channel: Channel, waiting: list[Query]) -> None:
        """A process ended or was killed; these queries have no answer."""
        if channel is not self._channel:
            # It was retired; what it did not answer belongs to a policy that is no longer in force.
            self._refuse(waiting, "the policy was replaced meanwhile")
            return
        self._channel = None
        self._losses.append(asyncio.get_running_loop().time())
        self._held.extend(waiting)
        if any(not query.answered.done() for query in waiting) and not self._losing():
            self._replace()
        elif self._losing():
            self._refuse(self._held, "the policy engine was lost too often")

    def _losing(self) -> bool:
        since = asyncio.get_running_loop().time() - self._loss_window_s
        return len(self._losses) == self._losses.maxlen and self._losses[0] > since

    def _replace(self) -> None:
        """Start another process for the active policy, unless one is starting. Raises `PolicyUnavailable`."""
        if self._losing():
            raise PolicyUnavailable("the policy engine was lost too often", retry_after_ms=RETRY_AFTER_MS)
        if self._active is not None and not any(task.get_name() == _STARTING for task in self._tasks):
            self._keep(asyncio.get_running_loop().create_task(self._start(*self._active), name=_STARTING))

    async def _start(self, revision: str, bundle: Bundle) -> None:
        try:
            process = await asyncio.to_thread(EngineProcess, bundle, revision)
        except EngineFailed as error:
            self._losses.append(asyncio.get_running_loop().time())
            self._refuse(self._held, str(error))
            return
        if self._channel is None and self._active == (revision, bundle):
            await self._connect(process)
        else:
            await asyncio.to_thread(process.end)

    def _ended(self, process: EngineProcess) -> None:
        """The connection is gone: take leave of the process without holding up the loop."""
        self._keep(asyncio.get_running_loop().create_task(asyncio.to_thread(process.end)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse(self, queries: list[Query], why: str) -> None:
        for query in queries:
            query.answer(Answer(self.revision or "", error=why))
        queries.clear()


_STARTING: Final = "start policy engine"
