"""An inclusion proof as a file of its own (C2SP tlog-proof): a leaf's index, its path, and the head that it leads to.

c2sp.org/tlog-proof@v1
extra <base64>            (not used here, and refused: it would carry what nobody checks)
index <n>
<base64 of a hash>        (from the leaf to the root, as many as there are)
                          (an empty line)
<the signed head>
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from stepgrant.merkle import HASH_BYTES, MAX_SIZE, leaf_hash, verify_inclusion
from stepgrant.tlog.errors import TlogProofUnreadable
from stepgrant.tlog.head import Head, read_signed_head
from stepgrant.tlog.note import Note

_FIRST: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})")
_MAX_BYTES: Final = 65_536
_MAX_HASHES: Final = 63


@dataclass(frozen=True, slots=True)
class TlogProof:
    """That leaf `index` is in the tree of `head`; nothing is verified yet, neither path nor signatures."""

    index: int
    hashes: tuple[bytes, ...]
    head: Head
    note: Note

    def verify(self, leaf: bytes) -> None:
        """That this leaf (its bytes, not its hash) is leaf `index` of the head's tree. Raises `ProofInvalid`."""
        verify_inclusion(leaf_hash(leaf), self.index, self.head.size, self.hashes, self.head.root)


def write_proof(index: int, hashes: list[bytes], signed_head: bytes) -> bytes:
    """The proof as bytes."""
    lines = [_FIRST, f"index {index}", *(base64.b64encode(one).decode("ascii") for one in hashes)]
    return ("\n".join(lines) + "\n\n").encode() + signed_head


def read_proof(data: bytes, origin: str | None = None) -> TlogProof:
    """Raises `TlogProofUnreadable`, `NoteInvalid`, `HeadUnreadable`."""
    top, gap, signed_head = data.partition(b"\n\n")
    if not gap or len(data) > _MAX_BYTES:
        raise TlogProofUnreadable("a proof is lines, an empty line and a signed head", reason="not_a_proof")
    try:
        lines = top.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise TlogProofUnreadable("a proof's lines are ASCII", reason="not_a_proof") from None
    found = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
    if lines[0] != _FIRST or found is None or int(found[1]) > MAX_SIZE or len(lines) - 2 > _MAX_HASHES:
        raise TlogProofUnreadable(f"a proof begins with {_FIRST} and an index", reason="not_a_proof")
    head, note = read_signed_head(signed_head, origin)
    return TlogProof(int(found[1]), tuple(_hash(line) for line in lines[2:]), head, note)


def _hash(line: str) -> bytes:
    try:
        data = base64.b64decode(line, validate=True)
    except binascii.Error:
        data = b""
    if len(data) != HASH_BYTES or base64.b64encode(data).decode("ascii") != line:
        raise TlogProofUnreadable("a line of a proof is not base64 of 32 bytes", reason="not_a_proof")
    return data
