"""Keys that sign notes: a log's, an impostor's of the same name, and two witnesses'."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stepgrant import tlog
from stepgrant.tlog import note as notes

ORIGIN = "broker.example/log"


class Hand:
    """A key that signs notes."""

    def __init__(self, name: str, kind: int = tlog.ED25519) -> None:
        self._secret = Ed25519PrivateKey.generate()
        self.key = tlog.note_key(name, kind, self._secret.public_key().public_bytes_raw())

    def sign(self, text: str, seconds: int = 1_800_000_000) -> tlog.NoteSignature:
        if self.key.kind == tlog.COSIGNATURE:
            signature = self._secret.sign(notes.cosigned_bytes(text, seconds))
            return notes.cosignature(self.key.name, self.key.id, seconds, signature)
        return tlog.NoteSignature(self.key.name, self.key.id, self._secret.sign(text.encode()))


LOG, OTHER = Hand(ORIGIN), Hand(ORIGIN)
ALICE, BOB = Hand("alice.example", tlog.COSIGNATURE), Hand("bob.example", tlog.COSIGNATURE)


def signed(text: str, *hands: Hand) -> bytes:
    return tlog.Note(text, tuple(hand.sign(text) for hand in hands)).encoded()


def head_of(size: int, root: bytes = bytes(32)) -> str:
    return tlog.Head(ORIGIN, size, root).text


GOOD = signed(head_of(3), LOG).decode()
