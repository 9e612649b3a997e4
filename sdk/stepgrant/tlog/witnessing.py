"""What a log and a witness say to each other (C2SP tlog-witness): `POST <prefix>/add-checkpoint`.

    old <size>
    <base64 of a hash>        (the consistency proof from the old size, at most 63)
                              (an empty line)
    <the signed head>

Answers: 200 signature lines · 400 old is above new, or unreadable · 403 no key of this log signed · 404 unknown log ·
409 with the size that the witness knows (`text/x.tlog.size`) · 422 the proof does not hold.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from stepgrant.merkle import HASH_BYTES, MAX_SIZE
from stepgrant.tlog.errors import NoteInvalid

PATH: Final = "/add-checkpoint"
SIZE_TYPE: Final = "text/x.tlog.size"
MAX_REQUEST_BYTES: Final = 65_536
_MAX_HASHES: Final = 63
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """The body of a request: `signed_head` continues the tree of size `old`."""

    old: int
    proof: tuple[bytes, ...]
    signed_head: bytes

    def encoded(self) -> bytes:
        """The body."""
        lines = [f"old {self.old}", *(base64.b64encode(one).decode("ascii") for one in self.proof)]
        return ("\n".join(lines) + "\n\n").encode() + self.signed_head


def read_request(data: bytes) -> AddCheckpoint:
    """Raises `NoteInvalid` (reason bad_request)."""
    top, gap, signed_head = data.partition(b"\n\n")
    try:
        first, *rest = top.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise _bad() from None
    found = _OLD.fullmatch(first)
    if not gap or found is None or int(found[1]) > MAX_SIZE or len(rest) > _MAX_HASHES or len(data) > MAX_REQUEST_BYTES:
        raise _bad()
    return AddCheckpoint(int(found[1]), tuple(_hash(line) for line in rest), signed_head)


def _hash(line: str) -> bytes:
    try:
        data = base64.b64decode(line, validate=True)
    except binascii.Error:
        raise _bad() from None
    if len(data) != HASH_BYTES or base64.b64encode(data).decode("ascii") != line:
        raise _bad()
    return data


def _bad() -> NoteInvalid:
    return NoteInvalid("a request is `old <size>`, hashes, an empty line and a signed head", reason="bad_request")
