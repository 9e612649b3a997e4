"""Failpoints where an answer leaves: `api.before_reply`, and `api.mid_reply` with half of the body on its way.

Only a broker of a test has this around its application. A lost answer is lost as a network loses it: no status, no end,
a cut connection; the application believes that it answered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from stepgrant_broker.wiring.failpoints import ReplyLost

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stepgrant_broker.domain.ports import Failpoints

OUT_S: Final = 0.005
"""The event loop writes, and notices a cut, at its next turns."""


class BreakableReplies:
    """The application, with answers that can be lost, cut or killed on their way out."""

    def __init__(self, app: ASGIApp, failpoints: Failpoints) -> None:
        self._app = app
        self._failpoints = failpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises what a failpoint raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lost = False

        async def out(message: Message) -> None:
            nonlocal lost
            if lost:
                return
            try:
                await self._leave(message, send)
            except ReplyLost:
                lost = True
                await _cut(send)

        await self._app(scope, receive, out)

    async def _leave(self, message: Message, send: Send) -> None:
        if message["type"] == "http.response.start":
            self._failpoints.hit("api.before_reply")
            await send(message)
            return
        body: bytes = message.get("body", b"")
        half = len(body) // 2
        await send({**message, "body": body[:half], "more_body": True})
        await asyncio.sleep(OUT_S)
        self._failpoints.hit("api.mid_reply")
        await send({**message, "body": body[half:]})


async def _cut(send: Any) -> None:  # noqa: ANN401 - a method of uvicorn's cycle, which owns the connection
    """End the connection without another byte; ASGI has no word for it."""
    send.__self__.transport.abort()
    await asyncio.sleep(OUT_S)
