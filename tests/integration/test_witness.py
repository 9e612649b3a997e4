"""A witness as a process of its own: it cosigns what continues, refuses a fork, and remembers across a kill -9."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from processes import stepgrant
from stepgrant import merkle, tlog
from stepgrant.merkle import Edge, leaf_hash
from stepgrant_broker.testing import start
from witnesses import NAME, witness

pytestmark = pytest.mark.timeout(240)  # processes of their own may have to wait for a busy machine
ORIGIN = "broker.example/log"


class Log:
    """A log that can lie: heads over any leaves, signed with its key."""

    def __init__(self) -> None:
        self._secret = Ed25519PrivateKey.generate()
        self.key = tlog.note_key(ORIGIN, tlog.ED25519, self._secret.public_key().public_bytes_raw())

    def head(self, leaves: list[bytes], origin: str = ORIGIN) -> bytes:
        text = tlog.Head(origin, len(leaves), self._edge(leaves)[0].root).text
        signature = tlog.NoteSignature(self.key.name, self.key.id, self._secret.sign(text.encode()))
        return tlog.Note(text, (signature,)).encoded()

    def request(self, old: int, leaves: list[bytes]) -> bytes:
        nodes = dict(self._edge(leaves)[1])
        proof = merkle.proof_of(merkle.consistency_ranges(old, len(leaves)), nodes.__getitem__)
        return tlog.AddCheckpoint(old, tuple(proof), self.head(leaves)).encoded()

    @staticmethod
    def _edge(leaves: list[bytes]) -> tuple[Edge, list[tuple[merkle.Node, bytes]]]:
        return Edge().append(map(leaf_hash, leaves))


@pytest.fixture
def log() -> Log:
    return Log()


LEAVES = [b"entry %d" % n for n in range(20)]


def test_it_cosigns_what_continues_and_refuses_a_fork(tmp_path: Path, log: Log) -> None:
    folder = tmp_path / "witness"
    with witness(folder, log.key, kill=True) as running:
        before = int(time.time())
        answer = running.add(log.request(0, LEAVES[:5]))
        assert answer.status_code == 200, answer.text
        note = tlog.Note(tlog.read_note(log.head(LEAVES[:5])).text, tuple(notes_of(answer)))
        (seconds,) = note.verified([running.key]).values()
        assert seconds is not None
        assert before <= seconds <= time.time() + 1
        assert running.add(log.request(5, LEAVES[:9])).status_code == 200

        fork = [*LEAVES[:8], b"another past", *LEAVES[9:12]]
        assert running.add(log.request(9, fork)).status_code == 422
        rewritten = running.add(log.request(9, [b"x", *LEAVES[1:9]]))
        assert rewritten.status_code == 422
        known = running.add(log.request(5, LEAVES[:12]))
        assert (known.status_code, known.text, known.headers["content-type"]) == (409, "9\n", "text/x.tlog.size")
    with witness(folder, log.key) as again:
        assert again.key == running.key
        assert again.add(log.request(0, LEAVES[:3])).status_code == 409
        assert again.add(log.request(9, fork)).status_code == 422
        assert again.add(log.request(9, LEAVES)).status_code == 200
        assert again.add(log.request(20, LEAVES)).status_code == 200  # the same head again


def notes_of(answer: httpx.Response) -> list[tlog.NoteSignature]:
    return tlog.note.read_signatures(answer.text)


def test_whom_it_does_not_know_it_does_not_cosign(tmp_path: Path, log: Log) -> None:
    other, body = Log(), log.request(0, LEAVES)
    with witness(tmp_path / "witness", log.key) as running:
        for wrong, status in (
            (b"", 400),
            (body.replace(b"old 0", b"old 21"), 400),
            (tlog.AddCheckpoint(0, (), log.head(LEAVES, "other.example")).encoded(), 404),
            (other.request(0, LEAVES), 403),
            (body.replace(b"\n20\n", b"\n19\n"), 403),
            (b"old 0\n" * 20_000, 413),
        ):
            assert running.add(wrong).status_code == status, wrong[:40]
        assert httpx.get(f"{running.url}/add-checkpoint", timeout=30).status_code == 405
        assert running.add(body).status_code == 200


def test_its_key_is_its_own_and_what_is_wrong_is_said_in_a_line(tmp_path: Path, log: Log) -> None:
    folder = tmp_path / "witness"
    with witness(folder, log.key):
        assert {path.stat().st_mode & 0o077 for path in folder.glob("*.jwk")} == {0}
    for words in (
        ("--name", "two words", "--log", log.key.vkey),
        ("--name", NAME, "--log", "nonsense"),
    ):
        done = stepgrant(tmp_path, "ledger", "witness", *words, "--folder", str(folder))
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    (key,) = folder.glob("*.jwk")
    key.chmod(0o644)
    loose = stepgrant(tmp_path, "ledger", "witness", "--name", NAME, "--log", log.key.vkey, "--folder", str(folder))
    assert loose.returncode != 0
    assert str(key) in loose.stderr


def test_a_broker_publishes_only_what_its_witness_cosigned(tmp_path: Path) -> None:
    """The broker starts, learns its log's key, and then asks the witness; a policy names both."""
    data = tmp_path / "data"
    with start(data) as first:
        vkey = httpx.get(f"{first.url}/v1/log/keys", timeout=30).text.strip()
        wait_for_head(first.url)
    key = tlog.read_vkey(vkey)
    with witness(tmp_path / "witness", key) as running:
        policy = tmp_path / "log.policy"
        policy.write_text(f"log {vkey}\nwitness w {running.key.vkey} {running.url}\nquorum w\n")
        with start(data, log_policy_file=policy) as broker:
            counted = wait_for_head(broker.url)
            head, note = tlog.read_signed_head(counted, key.name)
            assert NAME in {one.name for one in note.signatures}
            assert set(tlog.read_log_policy(policy.read_text()).check(note)) == {"w"}
    with start(data, log_policy_file=policy) as alone:
        alone.enroll("more", agents=["more"])
        time.sleep(2)
        assert wait_for_head(alone.url) == counted
        newest, _ = tlog.read_signed_head(counted, key.name)
        assert newest.size == head.size


def wait_for_head(url: str) -> bytes:
    for _ in range(200):
        answer = httpx.get(f"{url}/v1/log/checkpoint", timeout=30)
        if answer.status_code == 200:
            return answer.content
        time.sleep(0.1)
    raise AssertionError("no head was published")
