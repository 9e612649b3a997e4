"""A service with an API key: one of the demo's five targets, a process of its own.

It is written as any resource server would be: the middleware of `stepgrant.verify` checks each request and redeems its
grant, `extract` says which action a request is, and the application acts only before `act_before`.

It keeps a book, one JSON line for each thing that was done to it or refused, on the disk before it answers. It does the
work as often as it is asked: nothing here would hide a second call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from stepgrant.errors import InvalidRequest
from stepgrant.verify import (
    Action,
    BrokerRedeemer,
    GrantVerifier,
    HttpRequest,
    JwksSource,
    StepgrantMiddleware,
    VerifiedGrant,
    WorkloadKey,
)

LEEWAY_S = 1
REFUSED = 400
TOO_LATE = 410


class Book:
    """What was done to this service, oldest first, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+", encoding="utf-8")

    def note(self, line: dict[str, Any]) -> None:
        """Durable when this returns."""
        self._file.write(json.dumps({"at": time.time(), **line}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """All of it."""
        self._file.seek(0)
        return [json.loads(line) for line in self._file]


class Doorkeeper:
    """Notes every answer that refuses, before it goes out."""

    def __init__(self, app: Any, book: Book) -> None:  # noqa: ANN401 - an ASGI application
        self._app = app
        self._book = book

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        refused: dict[str, Any] = {}

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= REFUSED:
                refused.update(did="refused", path=scope["path"], status=message["status"])
            elif refused and message["type"] == "http.response.body":
                self._book.note({**refused, "code": json.loads(message["body"]).get("code")})
            await send(message)

        await self._app(scope, receive, note)


class Service:
    """The application behind the middleware; it only ever sees requests with a verified grant."""

    def __init__(self, name: str, book: Book, slow_reply_s: float) -> None:
        self.name = name
        self.key_id = f"{name}/old"
        self._book = book
        self._slow_reply_s = slow_reply_s

    def extract(self, request: HttpRequest) -> Action:
        """Which action a request is; its arguments come from what the request will make us do."""
        match request.method, request.path:
            case "POST", "/keys/rotate":
                return Action("keys.rotate", self.name, request.json())
            case "POST", "/keys/revoke-old":
                return Action("keys.revoke_old", self.name, request.json())
            case "GET", "/keys/rotations":
                asked = dict(parse_qsl(request.query_string))
                asked.pop("idempotency_key", None)
                return Action("keys.rotate.reconcile", self.name, {**asked})
            case _:
                raise InvalidRequest("no such action here", reason="unknown_action")

    async def rotate(self, request: Request) -> Response:
        """Make a new key. The old one works on until it is revoked."""
        wanted = await request.json()
        grant: VerifiedGrant = request.scope["stepgrant"]
        if _too_late(grant):
            return _gone()
        done = {"key_id": f"{self.name}/{wanted['label']}", "replaces": self.key_id}
        self.key_id = done["key_id"]
        self._book.note({"did": "rotated", **done, **_under(grant)})
        # A slow network, so that somebody can pull the plug between the work and its answer.
        slow, self._slow_reply_s = self._slow_reply_s, 0
        await asyncio.sleep(slow)
        return JSONResponse(done)

    async def revoke_old(self, request: Request) -> Response:
        """Make keys unusable, here and wherever they are asked for."""
        wanted = await request.json()
        grant: VerifiedGrant = request.scope["stepgrant"]
        if _too_late(grant):
            return _gone()
        self._book.note({"did": "revoked_old", "keys": wanted["keys"], **_under(grant)})
        return JSONResponse({"revoked": wanted["keys"]})

    async def rotations(self, request: Request) -> Response:
        """What was done under one idempotency key."""
        wanted = request.query_params["idempotency_key"]
        found = [line for line in self._book.lines() if line["did"] == "rotated" and line["idempotency_key"] == wanted]
        return JSONResponse([{"key_id": line["key_id"], "replaces": line["replaces"]} for line in found])


def _too_late(grant: VerifiedGrant) -> bool:
    return time.time() * 1000 >= grant.act_before


def _gone() -> Response:
    return JSONResponse({"code": "grant_expired"}, TOO_LATE)


def _under(grant: VerifiedGrant) -> dict[str, Any]:
    """Under which permission: nothing of it is secret."""
    return {
        "idempotency_key": grant.idempotency_key,
        "run": grant.run_id,
        "step": grant.step,
        "epoch": grant.epoch,
        "grant": grant.jti,
        "redeemed": grant.redeemed,
    }


def build(options: argparse.Namespace) -> Doorkeeper:
    """The whole service as an ASGI application."""
    verifier = GrantVerifier(
        issuer=options.broker,
        audience=f"http://127.0.0.1:{options.port}",
        keys=JwksSource(f"{options.broker}/.well-known/jwks.json"),
        redeemer=BrokerRedeemer(options.broker, WorkloadKey.load(options.key)),
        leeway_s=LEEWAY_S,
    )
    book = Book(options.book)
    service = Service(options.name, book, options.slow_reply)
    routes = [
        Route("/keys/rotate", service.rotate, methods=["POST"]),
        Route("/keys/revoke-old", service.revoke_old, methods=["POST"]),
        Route("/keys/rotations", service.rotations),
        Route("/healthz", lambda _: Response()),
    ]
    guarded = StepgrantMiddleware(Starlette(routes=routes), verifier, service.extract, open_paths=["/healthz"])
    return Doorkeeper(guarded, book)


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--key", required=True, type=Path)
    parser.add_argument("--book", required=True, type=Path)
    parser.add_argument("--slow-reply", type=float, default=0)
    options = parser.parse_args()
    uvicorn.run(build(options), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
