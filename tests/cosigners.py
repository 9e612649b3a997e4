"""Witnesses in the process of a test, with keys and signatures of their own."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stepgrant import tlog
from stepgrant.tlog import note as notes


class Cosigners:
    """Witnesses in this process; `present` are those that answer."""

    def __init__(self, names: Sequence[str], quorum: str, log: tlog.NoteKey) -> None:
        self._secrets = {name: Ed25519PrivateKey.generate() for name in names}
        self.keys = {
            name: tlog.note_key(name, tlog.COSIGNATURE, secret.public_key().public_bytes_raw())
            for name, secret in self._secrets.items()
        }
        self.present = set(names)
        lines = [f"log {log.vkey}", *(f"witness {name} {key.vkey}" for name, key in self.keys.items()), quorum]
        self.policy = tlog.read_log_policy("\n".join(lines))
        self.seen: list[int] = []

    async def cosign(self, head: tlog.Head, note: tlog.Note) -> list[tlog.NoteSignature]:
        self.seen.append(head.size)
        made = []
        for name in sorted(self.present):
            signature = self._secrets[name].sign(notes.cosigned_bytes(note.text, 1_800_000_000))
            made.append(notes.cosignature(name, self.keys[name].id, 1_800_000_000, signature))
        return made
