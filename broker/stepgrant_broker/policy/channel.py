"""The event loop's end of the socket to one engine process.

Rules:
* Queries are answered in the order in which they were sent; the first one sent is the one that runs. Only a few are on
  their way, so that what nobody waits for any more is dropped here instead of being worked off there.
* Whoever waits longer than the deadline is answered. The process is killed only when the running query itself has taken
  that long, so that a long queue alone costs no process.
* When the process is gone, the query that ran is refused and the others are handed back unanswered.
* One timer watches the deadlines of all queries: nearly every query is answered long before, and a timer of its own
  would cost more than all else here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from stepgrant_broker.policy.engine_process import Answer, EngineProcess, frame, read_answer, unframed

ON_THEIR_WAY: Final = 4


class Query:
    """One input and whoever waits for its decision. `over`: it does not run and never will."""

    __slots__ = ("answered", "channel", "deadline_s", "over", "policy_input", "until")

    def __init__(self, policy_input: bytes, deadline_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.policy_input = policy_input
        self.deadline_s = deadline_s
        self.until = loop.time() + deadline_s
        self.answered: asyncio.Future[Answer] = loop.create_future()
        self.channel: Channel | None = None
        self.over = False

    def answer(self, answer: Answer) -> None:
        """Tell whoever still waits."""
        self.over = True
        if not self.answered.done():
            self.answered.set_result(answer)

    def expire(self) -> None:
        """Its deadline has come. It counts for a caller that went away, too: the query may still run."""
        if not self.answered.done():
            self.answered.set_result(Answer("", error=f"no decision within {self.deadline_s} s"))
        if self.channel is not None:
            self.channel.watch(self)


class Deadlines:
    """Expires queries in time. The timer runs on when they are answered; it then finds nothing to do."""

    def __init__(self) -> None:
        self._queries: deque[Query] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def watch(self, query: Query, loop: asyncio.AbstractEventLoop) -> None:
        """Expire it at its deadline unless it is over by then."""
        while self._queries and self._queries[0].over:
            self._queries.popleft()
        self._queries.append(query)
        if self._timer is None or query.until < self._at:
            self._set(query.until, loop)

    def stop(self) -> None:
        """Expire nothing any more."""
        self._queries.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, at: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = loop.call_at(at, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        left = deque[Query]()
        for query in self._queries:
            if query.over:
                continue
            if query.until > now:
                left.append(query)
            else:
                query.expire()
        self._queries = left
        if left:
            self._set(min(query.until for query in left), loop)


class Channel(asyncio.Protocol):
    """`lost(channel, waiting)` is told once when the process is gone, `ended(process)` when its socket is closed."""

    def __init__(
        self,
        process: EngineProcess,
        lost: Callable[[Channel, list[Query]], None],
        ended: Callable[[EngineProcess], None],
    ) -> None:
        self._process = process
        self._lost = lost
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._sent: deque[Query] = deque()
        self._queued: deque[Query] = deque()
        self._running_since = 0.0
        self._retired = False
        self.gone = asyncio.Event()
        """Set once the process is gone and everybody was told."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        # No isinstance: uvloop's transports are not of this class.
        self._transport = cast("asyncio.Transport", transport)

    def send(self, query: Query) -> None:
        """Queue the query."""
        query.channel = self
        self._queued.append(query)
        self._fill()

    def _fill(self) -> None:
        while self._queued and len(self._sent) < ON_THEIR_WAY:
            query = self._queued.popleft()
            if query.answered.done():
                query.over = True
                continue
            if not self._sent:
                self._running_since = self._loop.time()
            self._sent.append(query)
            if self._transport is not None:
                self._transport.write(frame(query.policy_input))

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._buffer += data
        try:
            for body in unframed(self._buffer):
                self._sent.popleft().answer(read_answer(body, self._process.revision))
                self._next()
        except (ValueError, IndexError):
            # Not what our program sends: the process is not to be trusted with a decision.
            self._process.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        for query in (*self._sent, *self._queued):
            query.channel = None
        if self._sent:
            running = self._sent.popleft()
            running.answer(Answer(self._process.revision, error="the policy engine ended while deciding"))
        waiting = [*self._sent, *self._queued]
        self._sent.clear()
        self._queued.clear()
        self._ended(self._process)
        self._lost(self, waiting)
        self.gone.set()

    def watch(self, query: Query) -> None:
        """Kill the process if it has been at this query, which nobody waits for any more, for its whole deadline."""
        if not self._sent or self._sent[0] is not query:
            return
        left = self._running_since + query.deadline_s - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self.watch, query)
        else:
            self._process.kill()

    def retire(self) -> None:
        """End once nobody waits any more."""
        self._retired = True
        self._close_if_idle()

    def close(self) -> None:
        """End now."""
        self._process.kill()
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        if self._queued:
            self._fill()
        if self._sent:
            self._running_since = self._loop.time()
            if self._sent[0].answered.done():
                self.watch(self._sent[0])
        elif self._retired:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._sent and not self._queued:
            self.close()
