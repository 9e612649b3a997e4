"""Exporting the log: entries in the order of their leaf indexes, as lines for systems that collect events.

Rules:
* A position is a leaf index: it never changes, and there is none between two others. So whoever knows the last position
  that arrived knows what is missing.
* At least once: a position is noted only once all lines up to it are on disk. What a crash cut short is written again;
  half a line is taken away first.
* A log that is not the one that a position is of, or has become shorter, is refused: going on would leave a hole.
* Nothing passes an entry that is not as the log has it; `stepgrant ledger verify` says what is wrong there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from stepgrant.canonical import CanonicalError, loads
from stepgrant_broker.domain.entries import EntryType

if TYPE_CHECKING:
    from stepgrant_broker.domain.log import Tail
    from stepgrant_broker.domain.scanning import RawEntry

BATCH: Final = 500
STATE_VERSION: Final = 1
BEFORE_ALL: Final = -1
ONE: Final = 1
BLOCK: Final = 65_536
TYPES: Final = frozenset(kind.value for kind in EntryType)


class ExportRefused(Exception):
    """The export cannot go on; the message says why and what to do. Nothing was noted."""


class Exported(Protocol):
    """What is read. Both raise `StoreUnavailable`."""

    async def log_tail(self, limit: int) -> Tail:
        """Its head is where the log ends."""

    async def leaves_between(self, first: int, end: int) -> tuple[RawEntry, ...]:
        """Entries by leaf index."""


class Line(Protocol):
    """From an entry to what is written for it."""

    def __call__(self, fields: Mapping[str, Any], data: bytes, *, position: int, digest: bytes) -> Mapping[str, Any]:
        """A JSON object."""


async def batches(store: Exported, after: int, line: Line, *, size: int = BATCH) -> AsyncIterator[tuple[int, bytes]]:
    """Lines behind position `after` to the end of the log as it is, in batches: the last position, and the lines.

    Raises `ExportRefused` for a position that the log does not have, and an entry that is not as the log has it.
    """
    first = after + 1
    while True:
        end = (await store.log_tail(ONE)).head.size
        if first > end:
            raise ExportRefused(
                f"position {after} is behind the end of the log, which has {end} entries; was it restored? "
                "Begin anew with another --state, and tell whoever collects the lines"
            )
        if first == end:
            return
        last = min(first + size, end) - 1
        found = await store.leaves_between(first, last + 1)
        yield last, _lines(found, first, last, line)
        first = last + 1


def _lines(found: Sequence[RawEntry], first: int, last: int, line: Line) -> bytes:
    if [entry.leaf_index for entry in found] != list(range(first, last + 1)):
        raise _damaged(f"positions {first} to {last} are not all there, once each")
    made = []
    for position, entry in enumerate(found, first):
        digest = hashlib.sha256(entry.data).digest()
        if digest != entry.hash:
            raise _damaged(f"the entry at position {position} is not the one that the log has there")
        try:
            fields = loads(entry.data)
        except CanonicalError:
            fields = None
        if not isinstance(fields, dict) or fields.get("type") not in TYPES:
            raise _damaged(f"the entry at position {position} cannot be read by this version")
        event = line(fields, entry.data, position=position, digest=digest)
        made.append(json.dumps(event, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
    return b"".join(made)


def _damaged(what: str) -> ExportRefused:
    return ExportRefused(f"{what}; look with `stepgrant ledger verify`")


@dataclass(frozen=True, slots=True)
class State:
    """The file that says how far an export has come in the log of this name."""

    path: Path
    origin: str

    def read(self) -> int | None:
        """The last position that arrived; None without a file. Raises `ExportRefused` for one of another log."""
        try:
            kept = json.loads(self.path.read_bytes())
            version, origin, position = kept["v"], kept["origin"], kept["position"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ExportRefused(f"{self.path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise ExportRefused(f"{self.path} is not the state of an export") from None
        if version != STATE_VERSION or type(position) is not int or position < BEFORE_ALL:
            raise ExportRefused(f"{self.path} is not a state that this version can go on from")
        if origin != self.origin:
            raise ExportRefused(
                f"{self.path} is of the log {origin!r}, this one is {self.origin!r}: a position there says nothing "
                "here; after a restore, begin with another --state"
            )
        return int(position)

    def note(self, position: int) -> None:
        """Everything up to this position has arrived. Durable when it returns."""
        text = json.dumps({"v": STATE_VERSION, "origin": self.origin, "position": position}) + "\n"
        aside = self.path.with_name(self.path.name + ".new")
        with aside.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)
        _sync_folder(self.path)


class Sink:
    """Where lines go: a file that is appended to, or a stream.

    Raises `ExportRefused` for a file that cannot be opened.
    """

    def __init__(self, file: BinaryIO, *, durable: bool) -> None:
        self._file = file
        self._durable = durable

    @classmethod
    @contextlib.contextmanager
    def at(cls, path: Path) -> Iterator[Sink]:
        """The file at `path`, without half a line at its end."""
        try:
            file = path.open("a+b")
        except OSError as error:
            raise ExportRefused(f"{path} cannot be opened: {error.strerror}") from None
        with file:
            file.truncate(_whole(file))
            _sync_folder(path)
            yield cls(file, durable=True)

    def write(self, lines: bytes) -> None:
        """Write lines; when it returns they are on disk (a stream: given away)."""
        self._file.write(lines)
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())


def _whole(file: BinaryIO) -> int:
    """Where the last whole line ends: what a killed export left behind it was never noted."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def export(
    store: Exported,
    line: Line,
    sink: Sink,
    after: int,
    *,
    state: State | None = None,
    size: int = BATCH,
    go_on: Callable[[int], bool] = lambda _position: True,
) -> int:
    """Write what is behind position `after`; the last position. `go_on` is told the position of each batch.

    Raises `ExportRefused`, `StoreUnavailable`, `OSError`.
    """
    position = after
    async for last, lines in batches(store, after, line, size=size):
        sink.write(lines)
        if state is not None:
            state.note(last)
        position = last
        if not go_on(position):
            break
    return position
