"""The event loop's end of the socket to one engine process.

Rules:
* Queries are answered in the order in which they were sent; the first one sent is the one that runs. Only a few are on
  their way, so that what nobody waits for any more is dropped here instead of being worked off there.
* Whoever waits longer than the deadline is answered. The process is killed only when the running query itself has taken
  that long, so that a long queue alone costs no process.
* When the process is gone, the query that ran is refused and the others are handed back unanswered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from stepgrant_broker.policy.engine_process import Answer, EngineProcess, frame, read_answer, unframed

ON_THEIR_WAY: Final = 4


class Query:
    """One input and whoever waits for its decision."""

    def __init__(self, policy_input: bytes, deadline_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.policy_input = policy_input
        self.deadline_s = deadline_s
        self.answered: asyncio.Future[Answer] = loop.create_future()
        self.channel: Channel | None = None
        # It outlives a caller that goes away: the query may still run.
        self._timer = loop.call_later(deadline_s, self._expire)

    def answer(self, answer: Answer) -> None:
        """Tell whoever still waits."""
        self._timer.cancel()
        if not self.answered.done():
            self.answered.set_result(answer)

    def _expire(self) -> None:
        if not self.answered.done():
            self.answered.set_result(Answer("", error=f"no decision within {self.deadline_s} s"))
        if self.channel is not None:
            self.channel.watch(self)


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
        self._running_since = self._loop.time()
        self._fill()
        if self._sent and self._sent[0].answered.done():
            self.watch(self._sent[0])
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._sent and not self._queued:
            self.close()
