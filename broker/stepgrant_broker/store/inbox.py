"""From event loops to threads and back: a bounded queue of jobs, and their answers in batches.

Rules:
* A full queue refuses at once (`StoreUnavailable`): waiting callers would only hold what others need.
* A caller that was cancelled, or whose loop is closed, is passed over; its job is done all the same.
* Answers go back with one wake-up per event loop and batch.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
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
    """A bounded queue from event loops to one thread. `close` lets what is queued be finished."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._jobs: SimpleQueue[Job[W] | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._busy = False

    @property
    def load(self) -> int:
        """How much is queued or being done."""
        return self._jobs.qsize() + self._busy

    def put(self, work: W) -> asyncio.Future[Any]:
        """Queue work; the future gets its outcome. Raises `StoreUnavailable`."""
        job = Job(work)
        with self._closing:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            if self._jobs.qsize() >= self._capacity:
                raise StoreUnavailable("the store has more work than it can do; try again", retry_after_ms=RETRY_MS)
            self._jobs.put(job)
        return job.future

    def take(self, most: int) -> list[Job[W]]:
        """Wait for work and take up to `most` jobs; nothing once the inbox is closed and empty."""
        self._busy = False
        first = self._jobs.get()
        if first is None:
            return []
        self._busy = True
        taken = [first]
        while len(taken) < most and self._jobs.qsize():
            job = self._jobs.get()
            if job is None:
                # The end is for the next call; nothing was queued behind it.
                self._jobs.put(None)
                break
            taken.append(job)
        return taken

    def close(self) -> None:
        """Refuse new work and let the thread come to its end."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)


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
