"""From event loops to threads and back: a bounded queue of jobs, and their answers in batches.

Rules:
* A full queue refuses at once (`StoreUnavailable`): waiting callers would only hold what others need.
* A caller that was cancelled, or whose loop is closed, is passed over; its job is done all the same.
* Answers go back with one wake-up per event loop and batch.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store.faults import RETRY_MS

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Failed:
    """The outcome of a job that raises in its caller."""

    error: Exception


class Job(Generic[W]):
    """Work for a thread, and who waits for it."""

    __slots__ = ("future", "loop", "work")

    def __init__(self, work: W) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()


class Inbox(Generic[W]):
    """A bounded queue between event loops and threads. `close` lets what is queued be finished."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._jobs: deque[Job[W]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, work: W) -> asyncio.Future[Any]:
        """Queue work; the future gets its outcome. Raises `StoreUnavailable`."""
        job = Job(work)
        with self._changed:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            if len(self._jobs) >= self._capacity:
                raise StoreUnavailable("the store has more work than it can do; try again", retry_after_ms=RETRY_MS)
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def take(self, most: int) -> list[Job[W]]:
        """Wait for work and take up to `most` jobs; nothing once the inbox is closed and empty."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            return [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]

    def close(self) -> None:
        """Refuse new work and wake all threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def start(name: str, target: Callable[[], None]) -> threading.Thread:
    """A thread that never keeps the process alive by itself."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def answer(outcomes: Iterable[tuple[Job[Any], object]]) -> None:
    """Give each job's outcome to its caller."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job[Any], object]]] = {}
    for job, outcome in outcomes:
        by_loop.setdefault(job.loop, []).append((job, outcome))
    for loop, answers in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, answers)
        except RuntimeError:
            # The loop is closed: nobody waits there any more.
            continue


def _resolve(answers: Sequence[tuple[Job[Any], object]]) -> None:
    for job, outcome in answers:
        if job.future.done():
            continue
        if isinstance(outcome, Failed):
            job.future.set_exception(outcome.error)
        else:
            job.future.set_result(outcome)
