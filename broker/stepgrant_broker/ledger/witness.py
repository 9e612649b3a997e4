"""A witness (C2SP tlog-witness): it cosigns a head of a log that it knows, if it continues what it cosigned before.

Rules:
* The new head is durable before the cosignature leaves: a witness that forgot could be led to cosign a fork.
* One head per log; it is compared and moved in one transaction, so that two requests cannot both be right.
* It holds no payload, no entry and no tenant's data, and trusts nobody: not the log, not its operator.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from stepgrant import merkle, tlog
from stepgrant._keys import SecretKey
from stepgrant.canonical import b64u_decode
from stepgrant.tlog import note as notes
from stepgrant.tlog import witnessing

if TYPE_CHECKING:
    from starlette.requests import Request

_TABLE: Final = "CREATE TABLE IF NOT EXISTS heads (origin TEXT PRIMARY KEY, size INTEGER, root BLOB, note BLOB) STRICT"


class Refused(Exception):
    """A request is refused with this status."""

    def __init__(self, status: int, text: str, media_type: str = "text/plain") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.media_type = media_type


class Witness:
    """One witness: its name and key, the logs that it knows (`logs`: their verifier keys), and where it remembers."""

    def __init__(self, name: str, secret: SecretKey, logs: Iterable[tlog.NoteKey], store: Path) -> None:
        self.key = tlog.note_key(name, tlog.COSIGNATURE, b64u_decode(secret.public.jwk["x"]))
        self._secret = secret
        self._logs: dict[str, list[tlog.NoteKey]] = {}
        for log in logs:
            self._logs.setdefault(log.name, []).append(log)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(store, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_TABLE)

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            self._db.close()

    def add(self, body: bytes, now_s: int) -> bytes:
        """A signature line for the head in this request, durable before it is given. Raises `Refused`."""
        request, head, note = self._read(body)
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._move(request, head, note)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        signature = self._secret.sign(notes.cosigned_bytes(note.text, now_s))
        return (notes.cosignature(self.key.name, self.key.id, now_s, signature).line + "\n").encode()

    def _read(self, body: bytes) -> tuple[tlog.AddCheckpoint, tlog.Head, tlog.Note]:
        try:
            request = tlog.read_request(body)
            head, note = tlog.read_signed_head(request.signed_head)
        except (tlog.NoteInvalid, tlog.HeadUnreadable) as error:
            raise Refused(400, str(error)) from None
        keys = self._logs.get(head.origin)
        if keys is None:
            raise Refused(404, "this witness does not know this log")
        try:
            signed = note.verified(keys)
        except tlog.NoteInvalid as error:
            raise Refused(403, str(error)) from None
        if not signed:
            raise Refused(403, "no key of this log that is trusted here signed the head")
        if request.old > head.size:
            raise Refused(400, "the old size is above the head's")
        return request, head, note

    def _move(self, request: tlog.AddCheckpoint, head: tlog.Head, note: tlog.Note) -> None:
        """Compare with what was cosigned before, and remember the new head."""
        found = self._db.execute("SELECT size, root FROM heads WHERE origin = ?", (head.origin,)).fetchone()
        size, root = found if found is not None else (0, merkle.EMPTY_ROOT)
        if request.old != size:
            raise Refused(409, f"{size}\n", witnessing.SIZE_TYPE)
        try:
            merkle.verify_consistency(size, head.size, request.proof, root, head.root)
        except merkle.ProofInvalid as error:
            raise Refused(422, str(error)) from None
        self._db.execute(
            "INSERT INTO heads VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE"
            " SET size = excluded.size, root = excluded.root, note = excluded.note",
            (head.origin, head.size, head.root, note.encoded()),
        )

    def known(self, origin: str) -> bytes | None:
        """The newest head that was cosigned, as the log signed it."""
        with self._lock:
            found = self._db.execute("SELECT note FROM heads WHERE origin = ?", (origin,)).fetchone()
        return None if found is None else bytes(found[0])


def witness_app(witness: Witness) -> Starlette:
    """The witness over HTTP."""

    async def add_checkpoint(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > witnessing.MAX_REQUEST_BYTES:
                return Response("the request is too large", 413, media_type="text/plain")
        try:
            line = await asyncio.to_thread(witness.add, bytes(body), int(time.time()))
        except Refused as refused:
            return Response(refused.text, refused.status, headers={"content-type": refused.media_type})
        return Response(line, media_type="text/plain")

    async def vkey(_: Request) -> Response:
        return Response(witness.key.vkey + "\n", media_type="text/plain")

    return Starlette(
        routes=[Route(witnessing.PATH, add_checkpoint, methods=["POST"]), Route("/vkey", vkey, methods=["GET"])]
    )
