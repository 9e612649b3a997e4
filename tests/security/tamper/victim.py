"""A broker's database and key folder, to be stolen: written once by the real use cases, copied for each manipulation.

Two states are kept: the database as it is (`now`), and a backup of it (`backup`, with less of its log); and what others
kept: signed heads, and what a witness remembers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.hand import Hand, hand
from fakes.tale import whole_life
from logs import backed_up
from stepgrant import merkle, tlog
from stepgrant._keys import SecretKey
from stepgrant.canonical import b64u_decode
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.ledger.witness import Witness
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.usecases.keys import enter, register, revoke

ORIGIN: Final = "broker.example/log"
WITNESS: Final = "witness.example"
SECONDS: Final = 1_800_000_000
DATABASE: Final = Path("store", "stepgrant.db")
STEPS: Final = 40


@dataclass(frozen=True)
class Victim:
    """What was written: a folder (database and keys) for each state, the runs, and what others kept."""

    folder: Path
    run: str
    long_run: str
    heads: Mapping[int, bytes]
    old: int
    size: int
    witnessed: bytes
    policy: tlog.LogPolicy

    def state(self, name: str) -> Path:
        """The folder of a state: `now` or `backup`."""
        return self.folder / name


class Cosigning:
    """The sequencer's witnesses: one of its own, in this process, with its own memory."""

    def __init__(self, folder: Path, log: tlog.NoteKey) -> None:
        folder.mkdir(mode=0o700)
        secret = SecretKey.generate("EdDSA")
        self.witness = Witness(WITNESS, secret, [log], folder / "witness.db")
        name = f"witness w {self.witness.key.vkey}\n"
        self.policy = tlog.read_log_policy(f"log {log.vkey}\n{name}quorum w\n")
        self._size = 0
        self.log: PublicLog | None = None

    async def cosign(self, head: tlog.Head, note: tlog.Note) -> Sequence[tlog.NoteSignature]:
        """Its cosignature of the head."""
        assert self.log is not None
        proof = await self.log.consistency(self._size, head.size)
        request = tlog.AddCheckpoint(self._size, tuple(proof), note.encoded())
        line = self.witness.add(request.encoded(), SECONDS)
        self._size = head.size
        return tlog.note.read_signatures(line.decode())


async def write(folder: Path) -> Victim:
    """Write all states. The log of `now` has more than one tile, and a signed and cosigned head every few steps."""
    states = {name: folder / name for name in ("now", "backup")}
    states["now"].mkdir(mode=0o700)
    async with hand(states["now"]) as held:
        log_keys = await _log_keys(held)
        cosigning = Cosigning(folder / "witness", log_keys)
        await held.store.log_origin(ORIGIN)
        signer = LocalSigner.open(states["now"] / "keys", clock=held.clock)
        sequencer = Sequencer(held.store, signer, held.clock, ORIGIN, witnesses=cosigning)
        cosigning.log = PublicLog(held.store, sequencer)
        run = await whole_life(held)
        await _keys(held, signer)
        await sequencer.round()
        long_run = str((await held.open("long", who="k9"))["run"])
        await _steps(held, long_run, 0, STEPS // 2, sequencer)
        copy_state(states["now"], states["backup"])
        old = (await held.store.log_tail(1)).head.size
        await _steps(held, long_run, STEPS // 2, STEPS, sequencer)
        kept = {head.size: head.note for head in await held.store.log_published_after(0, 1000)}
    size = max(kept)
    witnessed = cosigning.witness.known(ORIGIN)
    assert witnessed is not None
    cosigning.witness.close()
    return Victim(folder, run, long_run, kept, old, size, witnessed, cosigning.policy)


async def _log_keys(held: Hand) -> tlog.NoteKey:
    (known, *_) = await held.ports.signer.public_keys("heads")
    return tlog.note_key(ORIGIN, tlog.ED25519, b64u_decode(str(known.jwk["x"])))


async def _keys(held: Hand, signer: LocalSigner) -> None:
    """Of `access` three keys came one after the other, and the second one was revoked; of the others there is one."""
    for _ in range(2):
        await register(held.store, signer, held.clock.now())
        held.clock.tick(1000)
        signer.make("access", at_once=True)
    keys = await register(held.store, signer, held.clock.now())
    access = [key.kid for key in keys if key.purpose == "access"]
    await revoke(held.store, access[1], held.clock.now(), 7)
    assert await enter(held.ports, held.store, "acme", access) == len(access)


async def _steps(held: Hand, run: str, first: int, end: int, sequencer: Sequencer) -> None:
    for number in range(first, end):
        await held.begin(run, f"l{number}", who="k9")
        await held.complete(run, f"l{number}", who="k9")
        if number % 10 == 9:
            await sequencer.round()


def copy_state(folder: Path, to: Path) -> None:
    """Copy database and keys as a backup does: SQLite's own way, so that what is in its journal comes along."""
    shutil.copytree(folder / "keys", to / "keys")
    (to / DATABASE.parent).mkdir(mode=0o700)
    backed_up(folder / DATABASE, to / DATABASE)


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """The stolen key that signs heads."""
    (path,) = sorted((folder / "keys").glob("heads-*.jwk"))
    return Ed25519PrivateKey.from_private_bytes(b64u_decode(json.loads(path.read_text())["d"]))


def signed(secret: Ed25519PrivateKey, size: int, root: bytes, origin: str = ORIGIN) -> bytes:
    """A head, signed with this key."""
    key = tlog.note_key(origin, tlog.ED25519, secret.public_key().public_bytes_raw())
    text = tlog.Head(origin, size, root).text
    return tlog.Note(text, (tlog.NoteSignature(key.name, key.id, secret.sign(text.encode())),)).encoded()


def tree_of(hashes: Sequence[bytes]) -> tuple[bytes, dict[tuple[int, int], bytes]]:
    """Root and tiles of a tree over these entry hashes, as a thief computes them."""
    edge, made = merkle.Edge().append(map(merkle.leaf_hash, hashes))
    tiles: dict[tuple[int, int], bytes] = {}
    for node, digest in made:
        if node.level % 8 == 0:
            place = (node.level // 8, node.number // 256)
            tiles[place] = tiles.get(place, b"") + digest
    return edge.root, tiles
