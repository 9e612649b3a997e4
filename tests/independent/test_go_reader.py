"""The log as a stranger in another language reads it: a Go program on the libraries of Go's own checksum database.

It reads a real broker over HTTP, and then what the broker published with one thing changed, which it has to refuse.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import stepgrant
from stepgrant import merkle, tlog
from stepgrant.merkle import Edge, Node, leaf_hash
from stepgrant_broker.testing import start

pytestmark = pytest.mark.timeout(180)
STEPS: Final = 90
WIDTH: Final = 256
POLICY: Final = """package stepgrant

default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

decision := {"effect": "allow", "reasons": ["listed"], "grant": {"effect": input.action.effect}} if {
	input.action.tool in {"reader.note", "stepgrant.run.open"}
}
"""


@stepgrant.tool(name="reader.note", effect="read", step_id="{n}")
def noted(n: int) -> int:
    """A tool that does nothing."""
    return n


@dataclass(frozen=True)
class Published:
    """What a log publishes, by path; `before` is a checkpoint of an earlier time."""

    vkey: str
    files: Mapping[str, bytes]
    before: bytes

    @property
    def above(self) -> str:
        """The tile of the level above the first."""
        return next(path for path in self.files if path.startswith("tile/1/"))

    def without(self, path: str) -> Published:
        return replace(self, files={name: data for name, data in self.files.items() if name != path})

    def with_(self, path: str, data: bytes) -> Published:
        return replace(self, files={**self.files, path: data})

    def flipped(self, path: str, at: int) -> Published:
        data = bytearray(self.files[path])
        data[at] ^= 1
        return self.with_(path, bytes(data))


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve these files on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path.removeprefix("/log/"))
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/log"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def reader(log_reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`reader(url, vkey, before=None, entries=())`: the finished process."""
    folder = tmp_path_factory.mktemp("reader")

    def read(
        url: str, vkey: str, before: bytes | None = None, entries: Mapping[int, bytes] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [str(log_reader), "-log", url, "-vkey", vkey]
        if before is not None:
            (folder / "older").write_bytes(before)
            command += ["-older", str(folder / "older")]
        for index, leaf in (entries or {}).items():
            command += ["-entry", f"{index}:{leaf.hex()}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return read


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Published, dict[int, bytes]]]:
    """A broker's address, what it publishes over HTTP, and the entry hashes of its store by leaf index."""
    folder = tmp_path_factory.mktemp("broker")
    with start(folder, policy={"stepgrant/main.rego": POLICY}) as broker, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPGRANT_URL", broker.url)
        patch.setenv("STEPGRANT_WORKLOAD_KEY", str(broker.enroll("reader", agents=["reader"])))
        with httpx.Client(base_url=f"{broker.url}/v1/log", timeout=60) as client:
            befores = []
            for part in (3, STEPS):
                with stepgrant.run(f"part-{part}", agent="reader"):
                    for n in range(part):
                        noted(n)
                broker.call(lambda running: running.log.catch_up())
                befores.append(client.get("checkpoint").raise_for_status().content)
            vkey = client.get("keys").raise_for_status().text.splitlines()[0]
            size = tlog.read_head(tlog.read_note(befores[1]).text).size
            bundles = [tlog.Tile(None, tile.number, tile.width) for tile in tlog.tiles_of(size) if tile.level == 0]
            paths = [tile.path for tile in (*tlog.tiles_of(size), *bundles)]
            files = {path: client.get(path).raise_for_status().content for path in paths}
        stored = broker.call(lambda running: running.store.log_leaves(0, size))
        published = Published(vkey, {"checkpoint": befores[1], **files}, befores[0])
        yield f"{broker.url}/v1/log", published, dict(enumerate(stored))


Real = tuple[str, Published, dict[int, bytes]]
Reader = Callable[..., subprocess.CompletedProcess[str]]


def test_it_verifies_a_real_broker_over_http(real: Real, reader: Reader) -> None:
    url, published, stored = real
    assert len(stored) > WIDTH  # a full tile, and a level above
    done = reader(url, published.vkey, published.before, {0: stored[0], 300: stored[300]})
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    head = tlog.read_head(tlog.read_note(published.files["checkpoint"]).text)
    before = tlog.read_head(tlog.read_note(published.before).text)
    assert found["size"] >= head.size
    assert found["included"] == found["size"]
    assert found["consistent_with"] == [before.size]
    assert found["found"] == [0, 300]
    assert found["origin"] == head.origin


def test_what_was_read_is_enough(real: Real, reader: Reader) -> None:
    _, published, stored = real
    with serving(published.files) as url:
        done = reader(url, published.vkey, published.before, stored)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["found"] == list(stored)


def edited(one: Published, line: int, change: Callable[[str], str]) -> Published:
    lines = one.files["checkpoint"].decode().split("\n")
    lines[line] = change(lines[line])
    return one.with_("checkpoint", "\n".join(lines).encode())


def flipped_signature(one: Published) -> Published:
    note = tlog.read_note(one.files["checkpoint"])
    (signature,) = note.signatures
    changed = bytes([*signature.key_id[:-1], signature.key_id[-1] ^ 1])
    return one.with_("checkpoint", tlog.Note(note.text, (replace(signature, blob=changed),)).encoded())


def signed_by_another(one: Published) -> Published:
    note, secret = tlog.read_note(one.files["checkpoint"]), Ed25519PrivateKey.generate()
    key = tlog.note_key(note.signatures[0].name, tlog.ED25519, secret.public_key().public_bytes_raw())
    signature = tlog.NoteSignature(key.name, key.id, secret.sign(note.text.encode()))
    return one.with_("checkpoint", tlog.Note(note.text, (signature,)).encoded())


LIES: Final[Mapping[str, tuple[Callable[[Published], Published], str]]] = {
    "a byte of the signature": (flipped_signature, "invalid signature"),
    "another size": (lambda one: edited(one, 1, lambda size: str(int(size) - 1)), "invalid signature"),
    "another root": (lambda one: edited(one, 2, lambda _: base64.b64encode(bytes(32)).decode()), "invalid signature"),
    "another log's name": (lambda one: edited(one, 0, lambda name: name + "2"), "invalid signature"),
    "another key's signature": (signed_by_another, "no matching signatures|no verifiable signatures"),
    "a hash in a full tile": (lambda one: one.flipped("tile/0/000", 40), "invalid|inconsistent|downloaded"),
    "a hash of a level above": (lambda one: one.flipped(one.above, 3), "invalid|inconsistent|downloaded"),
    "an entry in a full bundle": (lambda one: one.flipped("tile/entries/000", 50), "entry 1 is not in the tree"),
    "a length in a bundle": (lambda one: one.flipped("tile/entries/000", 1), "entries"),
    "an entry too few": (lambda one: one.with_("tile/entries/000", one.files["tile/entries/000"][:-34]), "255 entries"),
    "a tile that is gone": (lambda one: one.without("tile/0/000"), "404"),
    "a tile cut short": (
        lambda one: one.with_("tile/0/000", one.files["tile/0/000"][:-32]),
        "invalid|inconsistent|tile",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_one_thing_changed_is_refused(real: Real, reader: Reader, lie: str) -> None:
    _, published, _ = real
    change, said = LIES[lie]
    changed = change(published)
    assert changed.files != published.files
    with serving(changed.files) as url:
        done = reader(url, published.vkey, published.before)
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    assert any(word in done.stderr for word in said.split("|")), done.stderr


def test_an_entry_that_is_not_there_is_not_found(real: Real, reader: Reader) -> None:
    _, published, stored = real
    with serving(published.files) as url:
        for index, leaf in ((0, stored[1]), (len(stored), stored[0])):
            done = reader(url, published.vkey, None, {index: leaf})
            assert (done.returncode, done.stdout) == (1, "")
            assert f"{index}" in done.stderr


class OwnLog:
    """A log whose key is the test's, so that it can sign two pasts."""

    def __init__(self) -> None:
        self._secret = Ed25519PrivateKey.generate()
        self.key = tlog.note_key("fork.example/log", tlog.ED25519, self._secret.public_key().public_bytes_raw())

    def of(self, leaves: list[bytes]) -> Published:
        """What it would publish with these entries."""
        edge, made = Edge().append(map(leaf_hash, leaves))
        nodes: dict[Node, bytes] = dict(made)
        files = {}
        for tile in tlog.tiles_of(len(leaves)):
            first = tile.number * WIDTH
            level = 8 * (tile.level or 0)
            files[tile.path] = b"".join(nodes[merkle.Node(level, first + at)] for at in range(tile.width))
            if tile.level == 0:
                own = leaves[first : first + tile.width]
                files[tlog.Tile(None, tile.number, tile.width).path] = tlog.tiles.bundle(own)
        text = tlog.Head(self.key.name, len(leaves), edge.root).text
        signature = tlog.NoteSignature(self.key.name, self.key.id, self._secret.sign(text.encode()))
        files["checkpoint"] = tlog.Note(text, (signature,)).encoded()
        return Published(self.key.vkey, files, files["checkpoint"])


def test_two_pasts_of_one_log_are_refused_by_an_older_checkpoint(reader: Reader) -> None:
    log = OwnLog()
    leaves = [bytes([n]) * 32 for n in range(20)]
    honest, fork = log.of(leaves), log.of([*leaves[:6], b"another past".ljust(32), *leaves[7:]])
    for published, before, said in (
        (honest, log.of(leaves[:9]).before, ""),
        (fork, log.of(leaves[:6]).before, ""),
        (fork, log.of(leaves[:9]).before, "not a beginning"),
        (fork, honest.before, "not a beginning"),
        (log.of(leaves[:9]), honest.before, "the log has 9 entries, and had 20 before"),
    ):
        with serving(published.files) as url:
            done = reader(url, published.vkey, before)
        assert (done.returncode == 0) is (said == ""), done.stderr
        assert said in done.stderr
