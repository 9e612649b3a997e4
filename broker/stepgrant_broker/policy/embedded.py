"""The embedded `PolicyEngine`: regorus in this process, on a thread of its own.

Rules:
* A query has a deadline that includes its wait. One that overruns is answered `PolicyUnavailable`, its thread is
  abandoned and another one serves the next calls. Only a few threads may be abandoned at a time; then every call is
  `PolicyUnavailable` until one of them ends.
* The queue is bounded: more callers than it holds are `PolicyUnavailable` at once.
* A reload builds a new engine and takes its place only when it compiled, passed all checks and answered the samples. A
  broken edit leaves the present policy in force.
* All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.ports import Evaluation
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.engine_thread import Answer, EngineThread, Job
from stepgrant_broker.policy.probes import proven
from stepgrant_broker.policy.rego import ENGINE

DEADLINE_S: Final = 0.25
PROBE_DEADLINE_S: Final = 2.0
"""Longer than that of a call: a first evaluation also plans the rules."""
MAX_WAITING: Final = 256
MAX_ABANDONED: Final = 4
RETRY_AFTER_MS: Final = 1000
CLOSE_S: Final = 1.0


class EmbeddedEngine:
    """`PolicyEngine` on regorus. Before the first `load` every call is `PolicyUnavailable`."""

    def __init__(
        self,
        *,
        decision_ids: Callable[[], str],
        deadline_s: float = DEADLINE_S,
        probe_deadline_s: float = PROBE_DEADLINE_S,
        max_waiting: int = MAX_WAITING,
        max_abandoned: int = MAX_ABANDONED,
    ) -> None:
        self._decision_ids = decision_ids
        self._deadline_s = deadline_s
        self._probe_deadline_s = probe_deadline_s
        self._max_waiting = max_waiting
        self._max_abandoned = max_abandoned
        self._waiting = 0
        self._current: EngineThread | None = None
        self._given_up: list[EngineThread] = []

    @property
    def revision(self) -> str | None:
        """The revision that decides now."""
        return self._current.revision if self._current is not None else None

    async def load(self, revision: str, bundle: Bundle) -> None:
        """Decide by this policy from now on. Raises `PolicyInvalid` and then changes nothing."""
        thread = await asyncio.to_thread(proven, bundle, revision, deadline_s=self._probe_deadline_s)
        before, self._current = self._current, thread
        if before is not None:
            before.stop()

    async def evaluate(self, policy_input: bytes) -> Evaluation:
        """As the port says; `revision` is that of the policy which answered."""
        if self._waiting >= self._max_waiting:
            raise PolicyUnavailable("too many decisions are waiting", retry_after_ms=RETRY_AFTER_MS)
        thread = self._serving()
        self._waiting += 1
        try:
            answer = await self._ask(thread, policy_input)
        finally:
            self._waiting -= 1
        if answer.error is not None:
            raise PolicyUnavailable(answer.error, retry_after_ms=RETRY_AFTER_MS)
        return Evaluation(answer.raw, answer.revision, self._decision_ids(), ENGINE)

    async def close(self) -> None:
        """Stop the thread. A query that never ends keeps its own (daemon) thread."""
        thread, self._current = self._current, None
        if thread is not None:
            thread.stop()
            await asyncio.to_thread(thread.join, CLOSE_S)

    def _serving(self) -> EngineThread:
        """A thread that takes jobs. Raises `PolicyUnavailable`."""
        thread = self._current
        if thread is None:
            raise PolicyUnavailable("no policy is loaded", retry_after_ms=RETRY_AFTER_MS)
        if thread.alive and thread not in self._given_up:
            return thread
        self._given_up = [one for one in self._given_up if one.alive]
        if len(self._given_up) >= self._max_abandoned:
            raise PolicyUnavailable("the policy engine is stuck in earlier queries", retry_after_ms=RETRY_AFTER_MS)
        # The waiting jobs of the lost thread are in its queue.
        self._current = EngineThread(thread.bundle, thread.revision, jobs=thread.jobs)
        return self._current

    async def _ask(self, thread: EngineThread, policy_input: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def resolve(answer: Answer) -> None:
            timer.cancel()
            if not answered.done():
                answered.set_result(answer)

        def deliver(answer: Answer) -> None:
            # RuntimeError: the loop is closed, so nobody waits any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(resolve, answer)

        def expire() -> None:
            job.cancelled = True
            if not answered.done():
                answered.set_result(Answer(thread.revision, error=f"no decision within {self._deadline_s} s"))
            self._watch_overrun(thread, job)

        job = Job(policy_input, deliver)
        # It outlives a caller that goes away: the query may still hang.
        timer = loop.call_later(self._deadline_s, expire)
        thread.submit(job)
        return await answered

    def _watch_overrun(self, thread: EngineThread, job: Job) -> None:
        """Give the thread up once it has been at this job for as long as a query may take."""
        if job.started is None:
            return
        left = job.started + self._deadline_s - time.monotonic()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._watch_overrun, thread, job)
        elif thread.abandon(job):
            self._given_up.append(thread)
            if thread is self._current:
                # Stuck is said to the next caller; this one has its answer.
                with suppress(PolicyUnavailable):
                    self._serving()
