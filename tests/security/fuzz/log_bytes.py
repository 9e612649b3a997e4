"""Bytes of the log that are almost right: heads, proofs, requests, tiles, policies and keys (`stepgrant.tlog`).

Each format has true samples, a reader, and what may be believed of what it read: a head or proof that verifies is one
of the true ones, and where a format has one form, what was read writes the same bytes again.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from forging import ForgersKey, eddsa
from receipts import ORIGIN, jcs, note_line, sha, tree, vkey
from stepgrant import tlog
from stepgrant._receipt_keys import read_keys, read_trust
from stepgrant.errors import ReceiptError
from stepgrant.merkle import HASH_BYTES, Node

Belief = str | None
"""What was wrongly believed, or None."""

SIZES: Final = (1, 2, 3, 13, 64)
PIECES: Final[tuple[bytes, ...]] = (
    b"", b"\n", b"\n\n", b" ", b"\t", b"\r\n", b"\x00", b"\xff", b"=", b"==", b"+", b"-1", b"0", b"00", b"1e3",
    b"9223372036854775807", b"9223372036854775808", b"99999999999999999999", "— ".encode(), "—".encode(),
    b"A" * 43 + b"=", b"A" * 42 + b"B=", b"index 0", b"old 0", b"log ", b"witness ", b"group g all g", b"quorum none",
    b"#", "\u2028".encode(), "\u0664".encode(), b"{", b"[" * 2000, b"x" * 70_000,
)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """`read` says what it wrongly believed of these bytes; it may raise `ReceiptError`."""

    name: str
    samples: Sequence[bytes]
    read: Callable[[bytes], Belief]


class Log:
    """A small log with one witness, and its true bytes."""

    def __init__(self) -> None:
        self.key, self.alice, self.bob = (eddsa(name) for name in (b"log", b"alice", b"bob"))
        self.leaves = [sha(b"leaf %d" % number) for number in range(max(SIZES))]
        self.heads = {size: self._head(size) for size in SIZES}
        self.keys = [_note_key(ORIGIN, tlog.ED25519, self.key), _note_key("alice", tlog.COSIGNATURE, self.alice)]
        self.texts = {tlog.read_note(head).text for head in self.heads.values()}
        self.policy = "\n".join(
            [
                "# whom we trust",
                f"log {vkey(ORIGIN, 1, self.key)}",
                f"witness alice {vkey('alice', 4, self.alice)} https://alice.example/w",
                f"witness bob {vkey('bob', 4, self.bob)}",
                "group some any alice bob",
                "group both 2 alice bob",
                "quorum some",
                "",
            ]
        ).encode()

    def _head(self, size: int) -> bytes:
        root, _ = tree(self.leaves[:size])
        text = f"{ORIGIN}\n{size}\n{base64.b64encode(root).decode()}\n"
        signed = note_line(ORIGIN, 1, self.key, text.encode()) + note_line("alice", 4, self.alice, text.encode())
        return f"{text}\n{signed}".encode()

    def proofs(self) -> list[bytes]:
        """True proof files."""
        found = []
        for size in SIZES:
            _, paths = tree(self.leaves[:size])
            for index in {0, size // 2, size - 1}:
                hashes = [base64.b64decode(one) for one in paths[index]]
                found.append(tlog.write_proof(index, hashes, self.heads[size]))
        return found

    def formats(self) -> list[Format]:
        """Each format."""
        jwks = jcs({"keys": [{**self.key.jwk, "kid": "k"}, {**self.alice.jwk, "kid": "a"}]})
        paths = [tile.path.encode() for tile in (tlog.Tile(0, 0, 7), tlog.Tile(3, 1234567), tlog.Tile(None, 67, 1))]
        bundles = [tlog.tiles.bundle(self.leaves[:width]) for width in (1, 5)]
        request = tlog.AddCheckpoint(3, tuple(self.leaves[:4]), self.heads[13]).encoded()
        return [
            Format("heads", list(self.heads.values()), self.read_head),
            Format("proofs", self.proofs(), self.read_proof),
            Format("requests", [request], _read_request),
            Format("policies", [self.policy], self.read_policy),
            Format("keys", [jwks, self._export(), self.policy.split()[5] + b"\n", jcs(self.key.jwk)], _read_keys),
            Format("paths", paths, _read_path),
            Format("bundles", bundles, _read_bundle),
            Format("tiles", [b"".join(self.leaves[:width]) for width in (1, 5, 64)], _read_tile),
        ]

    def _export(self) -> bytes:
        """What `stepgrant keys export` gives: two keys, one of them revoked."""
        listed = []
        for revoked, key in ((None, self.key), (7, self.alice)):
            (kid,) = read_keys(key.jwk)
            times = {"since": 1, "signs_from": 1, "until": None, "revoked_at": revoked, "revoked_size": revoked}
            listed.append({"purpose": "heads", "kid": kid, "jwk": {**key.jwk, "kid": kid}, "number": 1, **times})
        return jcs({"v": 1, "kind": "stepgrant.keys", "log": ORIGIN, "keys": listed})

    def read_head(self, data: bytes) -> Belief:
        """A head counts only with the text that was signed."""
        head, note = tlog.read_signed_head(data)
        if note.encoded() != data:
            return "a note has two forms"
        return self._believed(head, note)

    def _believed(self, head: tlog.Head, note: tlog.Note) -> Belief:
        signed = note.verified(self.keys)
        if signed and (note.text not in self.texts or head.text != note.text):
            return "a head that nobody signed"
        return None

    def read_proof(self, data: bytes) -> Belief:
        """Of a true head, a proof connects each leaf with its own index only."""
        proof = tlog.read_proof(data)
        wrong = self._believed(proof.head, proof.note)
        if wrong is not None or not proof.note.verified(self.keys):
            return wrong
        for number in {0, proof.index % len(self.leaves), proof.head.size // 2}:
            try:
                proof.verify(self.leaves[number])
            except ReceiptError:
                continue
            if number != proof.index:
                return f"leaf {number} at {proof.index}"
        return None

    def read_policy(self, data: bytes) -> Belief:
        """Under no policy does a head count that no log key of it signed."""
        policy = tlog.read_log_policy(data.decode("utf-8", "replace"))
        note = tlog.read_note(self.heads[13])
        policy.check(note)
        return None if any(key == self.keys[0] for key in policy.logs) else "a head of no log that the policy names"


def _note_key(name: str, kind: int, key: ForgersKey) -> tlog.NoteKey:
    return tlog.note_key(name, kind, base64.urlsafe_b64decode(key.jwk["x"] + "=="))


def _read_request(data: bytes) -> Belief:
    return None if tlog.read_request(data).encoded() == data else "a request has two forms"


def _read_keys(data: bytes) -> Belief:
    trust = read_trust(data)
    return None if trust.keys and trust.revoked.keys() <= trust.keys.keys() else "no keys are keys"


def _read_path(data: bytes) -> Belief:
    text = data.decode("latin-1")
    return None if tlog.read_path(text).path == text else "a tile has two paths"


def _read_bundle(data: bytes) -> Belief:
    entries = tlog.tiles.read_bundle(data, len(data) // 34 or 1)
    return None if tlog.tiles.bundle(entries) == data else "a bundle has two forms"


def _read_tile(data: bytes) -> Belief:
    width = min(tlog.tiles.WIDTH, max(1, round(len(data) / HASH_BYTES)))
    last = tlog.node_in(Node(0, width - 1), tlog.Tile(0, 0, width), data)
    return None if last == data[-HASH_BYTES:] and len(data) == width * HASH_BYTES else "a tile of another length"


def mutated(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """One of the samples, with one to three things wrong; now and then nothing like them, or unchanged."""
    data = rng.choice(samples)
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 3))):
        data = _wrong(rng, data, samples)
    return data


def _wrong(rng: random.Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(9):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + rng.choice(PIECES) + data[at:]
        case 3:
            return data[:at] + rng.choice(PIECES) + data[at + rng.randrange(1, 12) :]
        case 4:
            other = rng.choice(samples)
            return data[:at] + other[rng.randrange(len(other) + 1) :]
        case 5:
            return rng.randbytes(rng.randrange(1, 200))
        case _:
            return _lines(rng, data)


def _lines(rng: random.Random, data: bytes) -> bytes:
    """Lines doubled, left out or moved; a word of one taken from another."""
    lines = data.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines.insert(to, lines[at])
        case 1:
            del lines[at]
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case _:
            words = lines[at].split(b" ")
            words[rng.randrange(len(words))] = rng.choice((rng.choice(PIECES), *lines[to].split(b" ")))
            lines[at] = b" ".join(words)
    return b"\n".join(lines)
