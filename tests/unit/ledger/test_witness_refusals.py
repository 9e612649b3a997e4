"""Who does not cosign a head is told by name and kind: for an alarm it must not be one warning among many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from conformance.store.making import Chain, SetClock
from cosigners import Cosigners
from logs import ORIGIN
from stepgrant import tlog
from stepgrant_broker.ledger import witnesses as asking_them
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.ledger.witnesses import HttpWitnesses
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.store.sqlite import SqliteStore


class Answers(BaseHTTPRequestHandler):
    """A witness that answers by the first part of its path."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        word = self.path.split("/")[1]
        self.send_response({"refused": 403, "invalid": 200}[word])
        self.end_headers()
        self.wfile.write(b"\xff" if word == "invalid" else b"no")

    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


async def test_each_refusal_is_told_by_name_and_kind(
    store: SqliteStore, signer: LocalSigner, sequencer: Sequencer, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (await sequencer.keys())[0]
    names = ("refused", "invalid", "silent")
    keys = Cosigners(names, "quorum none", key).keys
    urls = {"refused": f"{server}/refused", "invalid": f"{server}/invalid", "silent": "http://127.0.0.1:1"}
    lines = [f"witness {name} {keys[name].vkey} {urls[name]}" for name in names]
    group = f"group some any {' '.join(names)}"
    policy = tlog.read_log_policy("\n".join([f"log {key.vkey}", *lines, group, "quorum some"]))
    monkeypatch.setattr(asking_them, "PATIENCE_S", 60.0)  # a busy machine is no silent witness
    told: list[tuple[str, str]] = []
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        witnesses = HttpWitnesses(policy, client, lambda *one: told.append(one))
        asking = Sequencer(store, signer, SetClock(), ORIGIN, witnesses=witnesses)
        witnesses.prove_from(PublicLog(store, asking))
        await store.commit(Chain.of_run().adds(2))
        await asking.round()
    assert sorted(told) == [(name, name) for name in sorted(names)]
    assert asking.counted is None
