"""The newest head that counts, kept outside the database, and what it says of a store at the start.

Rules:
* A database that was put back to an earlier state is whole in itself: only what was kept elsewhere shows it. Here that
  is a file beside the keys, which a backup of the database must not bring along; elsewhere it is the witnesses.
* The file appears whole or not at all (written aside, synced, renamed), and only ever moves forward: several brokers
  may share it. It is written after the head is durable in the store, so that it is never ahead by itself.
* It moves only from a head that was shown to be a beginning of the store's tree (`proven`). By its size alone, a log
  that lost its end and grew again would write over the one thing that shows it.
* What was recorded and not yet signed (and cosigned) is not covered: up to `log_every_ms` of entries.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stepgrant import tlog
from stepgrant.merkle import EMPTY_ROOT, HASH_BYTES
from stepgrant.tlog.tiles import WIDTH
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.restoring import KnownHead, StoreRolledBack, follows
from stepgrant_broker.ledger.growing import TreeDamaged, edge_of, root_from

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from stepgrant_broker.domain.log import LogStore, TreeHead

NAME: Final = "newest-head"
MAX_BYTES: Final = 65_536
NO_LEAVES: Final = 1


class HeadFile:
    """The file. All methods block, and raise `StoreUnavailable` for all that is wrong with it, naming path and fix."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def read(self) -> KnownHead | None:
        """The head in it; None where there is no file (yet)."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"cannot read {self.path}: {error.strerror}") from None
        with os.fdopen(handle, "rb") as file:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
                raise StoreUnavailable(f"{self.path} is not a file that this user alone can write; restrict it")
            return self._head(file.read(MAX_BYTES))

    def _head(self, note: bytes) -> KnownHead:
        try:
            head, _ = tlog.read_signed_head(note)
        except (tlog.NoteInvalid, tlog.HeadUnreadable) as error:
            raise StoreUnavailable(
                f"{self.path} is damaged ({error}); put its copy back. Without one, compare the store's newest head "
                "with one that somebody else kept before you remove the file"
            ) from None
        return KnownHead(head.origin, head.size, head.root, str(self.path))

    def keep(self, note: bytes, proven: KnownHead | None) -> KnownHead | None:
        """Move it forward to this head; an older one changes nothing. None: that is done.

        Where another head is in it than the `proven` one, that head is returned, and nothing was changed. Raises
        `StoreRolledBack` for a log of another name, unless this is its name after a later restore.
        """
        head, _ = tlog.read_signed_head(note)
        with self._alone():
            known = self.read()
            if known is not None and known.origin != head.origin and not follows(head.origin, known.origin):
                raise StoreRolledBack(f"{self.path} knows the log {known.origin!r}, but this one is {head.origin!r}")
            if known is not None and known != proven:
                return known
            if known is None or known.origin != head.origin or known.size < head.size:
                self._write(note)
        return None

    def replace(self, note: bytes) -> None:
        """Put this head there, whatever was there: after a restore that somebody confirmed."""
        with self._alone():
            self._write(note)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, over all processes of this folder."""
        try:
            handle = os.open(self.path.with_name(f".{NAME}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _write(self, note: bytes) -> None:
        aside = self.path.with_name(f".{NAME}.{secrets.token_hex(8)}")
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(note)
                    file.flush()
                    os.fsync(handle)
                aside.replace(self.path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"the newest head cannot be kept at {self.path}: {error.strerror}; without it a store that was rolled back "
            "could not be told"
        )


async def contradicted(
    store: LogStore,
    origin: str,
    known: KnownHead,
    keys: Callable[[], Awaitable[Sequence[tlog.NoteKey]]],
    *,
    head: TreeHead | None = None,
) -> str | None:
    """Why the store is not a continuation of this head, in words; None if it is one.

    `keys` are the log's own under its present name. `head`: the end of the tree, where somebody has read it after
    `known`. Raises `StoreUnavailable`, and what `keys` raises.
    """
    if known.origin != origin:
        if not follows(origin, known.origin):
            return f"its log is called {origin!r}, but {known.where} knows {known.origin!r} at {known.size} entries"
        return await _unfinished(store, origin, keys)
    end = head or (await store.log_tail(NO_LEAVES)).head
    if known.size > end.size:
        return f"its log has {end.size} entries, but {known.where} knows {known.size}"
    if known.root is None or (head is not None and (known.size, known.root) == (head.size, head.root)):
        return None
    if await _root_at(store, known.size) != known.root:
        return f"the first {known.size} of its {end.size} entries are not those that {known.where} knows"
    return None


async def _unfinished(
    store: LogStore, origin: str, keys: Callable[[], Awaitable[Sequence[tlog.NoteKey]]]
) -> str | None:
    """Whether a restore that gave the log its name came to its end: then a key of ours signed a head under it.

    Who can only write the database cannot give the log a new name to be rid of what is known of the old one.
    """
    newest = await store.log_published()
    if newest is not None and await _signed_under(origin, newest.note, keys):
        return None
    return f"its log is called {origin!r}, but no head under that name is signed by this broker's keys"


async def _signed_under(origin: str, signed: bytes, keys: Callable[[], Awaitable[Sequence[tlog.NoteKey]]]) -> bool:
    try:
        _, note = tlog.read_signed_head(signed, origin)
        return bool(note.verified(await keys()))
    except (tlog.NoteInvalid, tlog.HeadUnreadable):
        return False


async def _root_at(store: LogStore, size: int) -> bytes | None:
    """The root over the first entries; None if the stored tiles do not have them."""
    if size == 0:
        return EMPTY_ROOT
    places = edge_of(size)
    stored = await store.log_tiles(places)
    cut = {
        (level, number): stored.get((level, number), b"")[: HASH_BYTES * ((size >> 8 * level) % WIDTH)]
        for level, number in places
    }
    try:
        return root_from(cut, size)
    except TreeDamaged:
        return None
