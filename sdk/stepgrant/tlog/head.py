"""Tree heads as C2SP tlog-checkpoints: a signed note of three lines, `origin`, `size` and base64 of the root.

A log signs one line of heads, each a beginning of the next; whoever holds two that are not has proof of a fork.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

from stepgrant.merkle import HASH_BYTES, MAX_SIZE
from stepgrant.tlog.errors import HeadUnreadable
from stepgrant.tlog.note import Note, read_note

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Head:
    """The root of the first `size` leaves of the log `origin`. It says nothing of who signed it."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"


def read_head(text: str, origin: str | None = None) -> Head:
    """The head in a note's text; of this `origin`, if one is given. Raises `HeadUnreadable`.

    More lines (extensions) are refused: this log writes none, and nobody here would know what they mean.
    """
    lines = text.split("\n")
    if len(lines) != _LINES + 1 or lines[-1]:
        raise HeadUnreadable("a head has three lines: origin, size and root", reason="not_a_head")
    name, size, root = lines[:_LINES]
    if not name or not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
        raise HeadUnreadable("a head's second line is a size", reason="not_a_head")
    try:
        hashed = base64.b64decode(root, validate=True)
    except ValueError:  # also what is not ASCII
        hashed = b""
    if len(hashed) != HASH_BYTES or base64.b64encode(hashed).decode("ascii") != root:
        raise HeadUnreadable("a head's third line is base64 of 32 bytes", reason="not_a_head")
    if origin is not None and name != origin:
        raise HeadUnreadable("the head is of another log", reason="other_origin")
    return Head(name, int(size), hashed)


def read_signed_head(data: bytes, origin: str | None = None) -> tuple[Head, Note]:
    """The head in a signed note, and the note to verify. Raises `NoteInvalid`, `HeadUnreadable`."""
    note = read_note(data)
    return read_head(note.text, origin), note
