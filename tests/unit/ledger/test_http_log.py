"""`ledger verify --url`: whatever the server at a log's URL answers, what is wrong is one named finding in one line."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from conformance.store.making import Chain
from stepgrant import ConfigurationError
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.ledger import check_log
from stepgrant_broker.ledger.findings import TREE, Code, Finding, Place, tile
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.readers import MAX_ANSWER, HttpLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.ledger.verify import LedgerCheck, TheLog
from stepgrant_broker.store.sqlite import SqliteStore

LEAVES = 300
TILES = ("tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1")
KINDS = ("keys", "checkpoint", TILES[0], TILES[2])
HANGS = b""


def answer(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """Bytes of an HTTP answer."""
    size = len(body) if length is None else length
    lines = (f"HTTP/1.1 {status} Said", f"Content-Length: {size}", "Connection: close", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body


@dataclass
class Liar:
    """A log's server that tells the truth but where it has a lie: raw bytes by path. `HANGS`: it says nothing."""

    log: PublicLog
    lies: dict[str, bytes] = field(default_factory=dict)
    drips: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    answering: set[asyncio.Task[None]] = field(default_factory=set)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.answering.add(task)
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode().removeprefix("/v1/log/")
            self.asked.append(path)
            said = self.lies.get(path)
            if said == HANGS:
                await reader.read()
            for part in [said or await self.truth(path)] if path not in self.drips else bytes_of(said or b""):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.02 if path in self.drips else 0)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # whoever asked has heard enough
        finally:
            self.answering.discard(task)
            writer.transport.abort() if reader.at_eof() else writer.close()

    async def truth(self, path: str) -> bytes:
        """What a broker says."""
        if path == "keys":
            return answer(200, "".join(f"{line}\n" for line in await self.log.vkeys()).encode())
        body = await self.log.head() if path == "checkpoint" else await self.log.tile(path)
        return answer(404) if body is None else answer(200, body)


def bytes_of(data: bytes) -> list[bytes]:
    """One by one."""
    return [data[at : at + 1] for at in range(len(data))]


@asynccontextmanager
async def serving(log: PublicLog) -> AsyncIterator[Liar]:
    liar = Liar(log)
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    liar.url = f"http://127.0.0.1:{port}"
    yield liar
    server.close()
    left = [*liar.answering]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@dataclass
class Remote:
    """A log with leaves in two tiles, and a check that reads it over HTTP."""

    store: SqliteStore
    liar: Liar
    deadline_s: float = 20.0

    async def findings(self) -> list[Finding]:
        """What a check finds in the log."""
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            log = TheLog(self.store, HttpLog(self.liar.url, client, deadline_s=self.deadline_s))
            found = [one async for one in LedgerCheck(self.store, self.store, log=log).findings()]
        return [one for one in found if one.at.table.startswith("log")]

    async def only(self) -> Finding:
        """The one thing that it finds, in one line."""
        (found,) = await self.findings()
        assert "\n" not in str(found)
        assert len(str(found)) < 250
        return found


@pytest.fixture
async def remote(store: SqliteStore, sequencer: Sequencer) -> AsyncIterator[Remote]:
    await store.commit(Chain.of_run().adds(LEAVES))
    await sequencer.round()
    async with serving(PublicLog(store, sequencer)) as liar:
        yield Remote(store, liar)


async def test_the_truth_holds(remote: Remote) -> None:
    assert await remote.findings() == []
    assert set(remote.liar.asked) == {"keys", "checkpoint", *TILES}


@pytest.mark.parametrize("path", KINDS)
async def test_a_status_that_is_no_answer_is_told_with_its_path(remote: Remote, path: str) -> None:
    """Also a redirect, wherever it leads: what another address says is not what this log says."""
    for status in (500, 503, 204, 301, 302, 307, 401):
        remote.liar.lies[path] = answer(status, b"", f"Location: {remote.liar.url}/v1/log/elsewhere")
        found = await remote.only()
        assert (found.code, found.at, found.what) == (Code.UNREADABLE, TREE, f"the log answered {status} to {path}")
    assert "elsewhere" not in remote.liar.asked


BROKEN = (
    (answer(200, b"x" * 10, length=400), "RemoteProtocolError"),
    (answer(200, b"x" * (MAX_ANSWER + 1)), f"more than {MAX_ANSWER} bytes"),
    (answer(200, gzip.compress(b"x" * 99), "Content-Encoding: gzip"), "a compressed answer"),
    (b"220 mail.example ESMTP\r\n", "RemoteProtocolError"),
    (b"\r\n", "RemoteProtocolError"),
)
"""Cut short; without end; one that could unfold; no HTTP; nothing at all."""


@pytest.mark.parametrize("path", KINDS)
async def test_an_answer_that_is_broken_off_or_has_no_end_is_told_with_its_path(remote: Remote, path: str) -> None:
    for said, why in BROKEN:
        remote.liar.lies[path] = said
        found = await remote.only()
        assert (found.code, found.at) == (Code.UNREADABLE, TREE)
        assert f"the log does not answer {path}: " in found.what
        assert why in found.what


@pytest.mark.parametrize(("path", "drips"), [("keys", False), (TILES[0], False), ("checkpoint", True)])
async def test_an_answer_that_does_not_end_in_time_is_told_with_its_path(
    remote: Remote, path: str, *, drips: bool
) -> None:
    """Byte by byte no read ever times out, but the answer does."""
    remote.liar.lies[path] = answer(200, b"x" * 10_000) if drips else HANGS
    remote.liar.drips |= {path} if drips else set()
    remote.deadline_s = 3.0
    found = await remote.only()
    assert (found.code, found.at) == (Code.UNREADABLE, TREE)
    assert found.what == f"the log gave no whole answer to {path} in 3 s"


async def test_nobody_at_the_url_is_told(remote: Remote) -> None:
    remote.liar.url = "http://127.0.0.1:9"
    found = await remote.only()
    assert (found.code, found.at) == (Code.UNREADABLE, TREE)
    assert "ConnectError" in found.what


async def test_a_server_without_keys_is_no_log(remote: Remote) -> None:
    for said in (answer(404), answer(200)):
        remote.liar.lies["keys"] = said
        found = await remote.only()
        assert (found.code, found.at) == (Code.UNREADABLE, TREE)
        assert found.what == "the log shows no keys: is it this broker's URL?"
    assert remote.liar.asked == ["keys"] * 2


async def test_keys_that_are_none_are_told(remote: Remote) -> None:
    for body in (b"<html>welcome</html>\n", b"\xff\xfe\n", b"log.example+00000000+AAAA\n", b"\n\n"):
        remote.liar.lies["keys"] = answer(200, body)
        found = await remote.only()
        assert (found.code, found.at) == (Code.UNREADABLE, TREE)
        assert found.what.startswith("what the log shows as its keys: ")


async def test_a_head_that_is_none_is_told(remote: Remote) -> None:
    for body in (b"<html>welcome</html>\n", b"\xff" * 100, b"x" * 500_000, b"", b"\n\n\n"):
        remote.liar.lies["checkpoint"] = answer(200, body)
        found = await remote.only()
        assert (found.code, found.at) == (Code.HEAD_UNREADABLE, TREE)
        assert found.what.startswith("the head that is shown: ")


async def test_a_head_that_nobody_is_shown_is_missed(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_log, "GRACE_MS", 300)
    remote.liar.lies["checkpoint"] = answer(404)
    found = await remote.only()
    assert (found.code, found.at) == (Code.HEAD_MISSING, TREE)
    assert "nobody who asks for one is shown any" in found.what
    assert remote.liar.asked.count("checkpoint") > 1


async def test_a_broker_that_has_just_begun_shows_its_head_a_moment_later(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_log, "PAUSE_S", 0)
    truth, asked = Liar.truth, remote.liar.asked

    async def late(liar: Liar, path: str) -> bytes:
        return answer(404) if path == "checkpoint" and asked.count(path) < 30 else await truth(liar, path)

    monkeypatch.setattr(Liar, "truth", late)
    assert await remote.findings() == []
    assert asked.count("checkpoint") == 30


@pytest.mark.parametrize(("path", "place"), [(TILES[0], tile(0, 0)), (TILES[1], tile(0, 1)), (TILES[2], tile(1, 0))])
async def test_a_tile_that_is_missing_or_of_another_length_is_named(remote: Remote, path: str, place: Place) -> None:
    whole = await remote.liar.log.tile(path)
    assert whole is not None
    remote.liar.lies[path] = answer(404)
    found = await remote.only()
    assert (found.code, found.at, found.what) == (Code.TILE_MISSING, place, "nobody can read it")
    for body in (b"", whole[:-1], whole[:-32], whole + b"\x00", whole * 2):
        remote.liar.lies[path] = answer(200, body)
        found = await remote.only()
        assert (found.code, found.at) == (Code.TILE_MISSING, place)
        assert found.what == f"{len(body)} bytes are shown for it, not {len(whole)}"


@pytest.mark.parametrize(("path", "place"), [(TILES[0], tile(0, 0)), (TILES[2], tile(1, 0))])
async def test_a_tile_of_something_else_is_named(remote: Remote, path: str, place: Place) -> None:
    whole = await remote.liar.log.tile(path)
    remote.liar.lies[path] = answer(200, b"<" * len(whole or b""))
    found = await remote.only()
    assert (found.code, found.at) == (Code.TILE_CHANGED, place)


async def test_a_url_that_anybody_could_answer_at_is_refused() -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for url in ("http://log.example", "ftp://127.0.0.1", "https://user:word@log.example", "log"):
            with pytest.raises(ConfigurationError):
                HttpLog(url, client)


async def test_each_fault_is_of_one_kind(remote: Remote) -> None:
    """Whoever else reads a log this way has one error to expect."""
    remote.liar.lies |= {"keys": answer(404), "checkpoint": answer(500)}
    async with httpx.AsyncClient(trust_env=False) as client:
        log = HttpLog(remote.liar.url, client)
        for asked in (log.vkeys(), log.head()):
            with pytest.raises(StoreUnavailable):
                await asked
