"""One thread that owns one compiled policy and answers queries in turn.

Rules:
* The engine is made, used and dropped in this thread only (see `rego`). What leaves the thread is bytes and text.
* A panic of the engine fails its query; then the engine is made anew, because a panicked one is in no known state.
* A query that does not end cannot be stopped, the thread can only be abandoned: it answers nobody any more, leaves when
  its query ends, and whoever abandoned it starts another. It is a daemon, so it never keeps the process alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final, TypeAlias

from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.contract import MAX_BYTES
from stepgrant_broker.policy.rego import DECISION, Rego, RegoError


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a query: `raw`, or an `error` that quotes nothing of the input."""

    revision: str
    raw: bytes | None = None
    error: str | None = None


Deliver: TypeAlias = Callable[[Answer], None]


@dataclass(slots=True, eq=False)
class Job:
    """One query. `deliver` is called once, in the engine's thread, unless the job is cancelled or abandoned."""

    policy_input: bytes
    deliver: Deliver
    rule: str = DECISION
    cancelled: bool = False
    started: float | None = field(default=None, init=False)
    """`time.monotonic()` at the start of its evaluation."""


_STOP: Final = None
Jobs: TypeAlias = "SimpleQueue[Job | None]"


class EngineThread:
    """Starts at once. `ready` is called once, with `None` or why the policy did not compile, before any job is done."""

    def __init__(
        self,
        bundle: Bundle,
        revision: str,
        *,
        ready: Callable[[str | None], None] | None = None,
        jobs: Jobs | None = None,
    ) -> None:
        self.bundle = bundle
        self.revision = revision
        self.jobs: Jobs = jobs if jobs is not None else SimpleQueue()
        self._ready = ready
        self._lock = threading.Lock()
        self._running: Job | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="stepgrant-policy", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still exists, busy or not."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self.jobs.put(job)

    def stop(self) -> None:
        """Leave once the jobs before this call are done."""
        self.jobs.put(_STOP)

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the thread to end; whether it did."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self, job: Job) -> bool:
        """Give the thread up if it is still at this job; whether it was. Its queue is then for another thread."""
        with self._lock:
            if self._running is not job:
                return False
            self._abandoned = True
            return True

    def _run(self) -> None:
        rego = self._compile()
        while rego is not None:
            job = self.jobs.get()
            if job is None:
                return
            if job.cancelled:
                continue
            with self._lock:
                self._running = job
            job.started = time.monotonic()
            answer, panicked = self._evaluate(rego, job)
            with self._lock:
                self._running = None
                if self._abandoned:
                    return
            job.deliver(answer)
            if panicked:
                del rego
                rego = self._compile()

    def _compile(self) -> Rego | None:
        try:
            rego = Rego(self.bundle.modules, self.bundle.data)
        except RegoError as error:
            failed: str | None = f"{error.place}: {error.message}"
            compiled = None
        else:
            failed, compiled = None, rego
        ready, self._ready = self._ready, None
        if ready is not None:
            ready(failed)
        return compiled

    def _evaluate(self, rego: Rego, job: Job) -> tuple[Answer, bool]:
        try:
            raw = rego.evaluate(job.policy_input, job.rule)
        except RegoError as error:
            what = "panicked" if error.panic else "failed"
            return Answer(self.revision, error=f"the policy engine {what} at {error.place}"), error.panic
        if raw is not None and len(raw) > MAX_BYTES:
            return Answer(self.revision, error=f"the policy answered with more than {MAX_BYTES} bytes"), False
        return Answer(self.revision, raw=raw), False
