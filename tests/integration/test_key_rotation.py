"""Keys are rotated while two brokers serve from one folder and one PostgreSQL: no call fails, everything verifies."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

import stepgrant
from clerks import SETTINGS
from stepgrant import receipt, tlog
from stepgrant._jose import parse
from stepgrant._keys import verifying_key
from stepgrant.canonical import dumps
from stepgrant.merkle import verify_consistency
from stepgrant_broker.ledger.key_export import export
from stepgrant_broker.testing import TestHost, start

if TYPE_CHECKING:
    from stepgrant_broker.domain.keys import SigningKey
    from stepgrant_broker.wiring import Broker
    from stepgrant_services import PostgresServer

pytestmark = pytest.mark.timeout(240)
SETTLE_S: Final = 8
"""Replicas look every second; on a busy machine a second may last longer."""
PATIENCE_S: Final = 90.0
TOOLS: Final = {"look": {"effect": "read", "audience": "http://127.0.0.1:9"}}
PURPOSES: Final = ("grants", "access", "heads")


@dataclass
class Seen:
    """What an agent of one broker met: its runs, which keys signed, and what went wrong."""

    runs: list[str] = field(default_factory=list)
    kids: set[str] = field(default_factory=set)
    tokens: int = 0
    errors: list[BaseException] = field(default_factory=list)


@contextmanager
def two_brokers(server: PostgresServer, folder: Path) -> Iterator[tuple[TestHost, TestHost]]:
    """On one database and one folder of keys."""
    shared: dict[str, Any] = {
        "settings": {**SETTINGS, "agents": {"clerk": {"tools": TOOLS}}},
        "database_url": server.create_database(),
        "keys_dir": folder / "keys",
        "key_settle_s": SETTLE_S,
        "log_every_ms": 100,
    }
    (folder / "one").mkdir(mode=0o700)
    with ExitStack() as stack:
        first = stack.enter_context(start(folder / "one", **shared))
        yield first, stack.enter_context(start(folder / "other", **shared))


def work(host: TestHost, other: TestHost, key: Path, seen: Seen, stop: threading.Event) -> None:
    """Runs one after the other; each token is verified with what the *other* broker publishes at that moment."""

    @stepgrant.tool(effect="read", name="look")
    def look(number: int) -> int:
        token = parse(stepgrant.current_credential().field("token"))
        published = httpx.get(f"{other.url}/.well-known/jwks.json", timeout=30).json()["keys"]
        jwk = next(one for one in published if one["kid"] == token.header["kid"])
        token.verified_claims(verifying_key(jwk))
        seen.kids.add(jwk["kid"])
        seen.tokens += 1
        return number

    for number in itertools.count():
        if stop.is_set():
            return
        try:
            with stepgrant.run(f"{host.url} {number}", agent="clerk", url=host.url, workload_key=key) as run:
                look(number)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
            seen.errors.append(error)
            return
        seen.runs.append(run.id)
        time.sleep(0.05)


def until(true: Callable[[], bool], seen: list[Seen]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert not [error for one in seen for error in one.errors]
        assert time.monotonic() < end
        time.sleep(0.1)


def registered(host: TestHost) -> tuple[SigningKey, ...]:
    async def read(broker: Broker) -> tuple[SigningKey, ...]:
        return await broker.store.signing_keys()

    return host.call(read)


def rotate(host: TestHost, purpose: str) -> SigningKey:
    async def change(broker: Broker) -> SigningKey:
        return await broker.keys.rotate(purpose)

    return host.call(change)


def head(host: TestHost) -> tuple[tlog.Head, tlog.Note]:
    return tlog.read_signed_head(httpx.get(f"{host.url}/v1/log/checkpoint", timeout=30).content)


def vkeys(host: TestHost) -> list[tlog.NoteKey]:
    return [tlog.read_vkey(line) for line in httpx.get(f"{host.url}/v1/log/keys", timeout=30).text.splitlines()]


def proven(host: TestHost, old: tlog.Head, new: tlog.Head) -> None:
    """That the newer head continues the older one."""

    async def proof(broker: Broker) -> list[bytes]:
        return await broker.log.consistency(old.size, new.size)

    verify_consistency(old.size, new.size, host.call(proof), old.root, new.root)


def test_all_keys_are_rotated_under_load(postgres_server: PostgresServer, tmp_path: Path) -> None:
    with two_brokers(postgres_server, tmp_path) as (one, other):
        key = one.enroll("clerks", agents=["clerk"])
        seen, stop = [Seen(), Seen()], threading.Event()
        threads = [
            threading.Thread(target=work, args=(*pair, key, found, stop))
            for pair, found in zip(((one, other), (other, one)), seen, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            until(lambda: all(found.tokens >= 2 for found in seen), seen)
            (old_key,), (old_head, _) = vkeys(one), head(one)
            old_run, old_export = seen[0].runs[0], dumps(export(registered(one), old_key.name))
            old_receipt = dumps(one.receipt(old_run))
            made = {purpose: rotate(host, purpose) for purpose, host in zip(PURPOSES, (one, other, one), strict=True)}
            both = [made["heads"].kid in {key.kid for key in registered(host)} for host in (one, other)]
            assert both == [True, True]
            until(lambda: all(made["grants"].kid in found.kids for found in seen), seen)
            until(lambda: len(head(one)[1].signatures) == len(head(other)[1].signatures) == 2, seen)
            until(lambda: all(len(found.runs) > 3 for found in seen), seen)
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_S)
        assert [found.errors for found in seen] == [[], []]
        assert [len(found.kids) for found in seen] == [2, 2]

        new_head, note = head(other)
        new_key = vkeys(other)[0]
        assert new_key.public != old_key.public
        for known in (old_key, new_key):  # Who knows only the old key follows, and so does who knows only the new one.
            assert note.verified([known]) == {known: None}
        assert new_head.size > old_head.size
        proven(other, old_head, new_head)

        exported = dumps(export(registered(other), old_key.name))
        receipt.verify(old_receipt, exported, need_log=True)
        receipt.verify(old_receipt, old_export, need_log=True)
        for host, found in zip((one, other), seen, strict=True):
            verified = receipt.verify(dumps(host.receipt(found.runs[-1])), exported, need_log=True)
            assert verified.kid == made["heads"].kid
        told = [event.part("body")["purpose"] for event in one.entries() if event.type == "key_rotated"]
        assert sorted(str(purpose) for purpose in told) == sorted(PURPOSES)
