"""How a connection to the database file is opened: the pragmas, the file's mode, and that it is still the same file.

Rules:
* WAL with synchronous=FULL: a commit is on the disk before it is acknowledged; readers never wait for the writer.
* Only `migrate` creates a database. The file is 0600 from its first moment (its -wal and -shm take the mode over), a
  folder made for it 0700.
* A file that was moved or replaced under a running broker is refused: what is written into a file without a name is
  lost with the process.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from stepgrant_broker.domain.errors import StoreUnavailable

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
BUSY_MS: Final = 5000
_LOOK_AGAIN_S: Final = 0.005
CACHE_KB: Final = 16_384
"""A connection's own pages. The default of 2 MB does not hold the keys of a busy hour, which are hashes."""


def url_of(path: Path) -> URL:
    """The URL of a database file, for `schema.migrate` and `schema.check`."""
    return URL.create("sqlite", database=str(path.absolute()))


def create_file(path: Path) -> None:
    """Make the folder and the empty file where they are missing. Raises `StoreUnavailable`."""
    with _of_files(path):
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))


def take_from_others(path: Path) -> None:
    """Give a database that is ours the mode that it should have had from the start. Raises `StoreUnavailable`."""
    with _of_files(path):
        path.chmod(FILE_MODE)


@contextmanager
def _of_files(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"the database file {path.name} cannot be written ({error.strerror}); "
            "check the owner and mode of the file and its folder"
        ) from None


class DatabaseFile:
    """The file that was there at the start, and no other one that took its name since."""

    def __init__(self, path: Path, busy_ms: int) -> None:
        self.path = path.absolute()
        self.busy_ms = busy_ms
        self._name = str(self.path)
        self._known = self._now()

    def _now(self) -> tuple[int, int]:
        try:
            found = os.stat(self._name)  # noqa: PTH116 - before each batch; a Path makes its name anew each time
        except OSError as error:
            raise StoreUnavailable(f"the database file {self.path.name} is gone ({error.strerror})") from None
        return found.st_dev, found.st_ino

    def require(self) -> None:
        """Raises `StoreUnavailable` when the file was moved or replaced."""
        if self._now() != self._known:
            raise StoreUnavailable("the database file was replaced by another one; restart the broker")


def open_writer(file: DatabaseFile) -> sqlite3.Connection:
    """The one connection that writes. Raises `sqlite3.Error`, `StoreUnavailable`."""
    db = _open(file)
    try:
        require_wal(db)
        db.execute("PRAGMA synchronous = FULL")
        # Without it, macOS acknowledges a sync that is only in the drive's cache. Elsewhere it changes nothing.
        db.execute("PRAGMA fullfsync = ON")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA journal_size_limit = 67108864")
        # What was erased, and the key that it was encrypted with, must not stay behind in free pages.
        db.execute("PRAGMA secure_delete = ON")
        # A savepoint keeps the pages that it changed; over 64 KB they would go to a temporary file, at each set.
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        db.close()
        raise
    return db


def require_wal(db: sqlite3.Connection) -> None:
    """Turn WAL on. Raises `StoreUnavailable` where the file system cannot hold it, and `sqlite3.Error`."""
    (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    until = time.monotonic() + patience_ms / 1000
    mode = _begin_wal(db, until)
    if mode != "wal":
        raise StoreUnavailable(f"this file system cannot hold the database: its journal mode stays {mode!r}")


def _begin_wal(db: sqlite3.Connection, until: float) -> str:
    while True:
        try:
            return str(db.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            # Behind one that has just begun to write, as who turns it on beside this one, SQLite waits for nobody here.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(_LOOK_AGAIN_S)


def open_reader(file: DatabaseFile) -> sqlite3.Connection:
    """A connection that can only look. Raises `sqlite3.Error`."""
    db = _open(file)
    try:
        db.execute("PRAGMA query_only = ON")
    except BaseException:
        db.close()
        raise
    return db


def _open(file: DatabaseFile) -> sqlite3.Connection:
    # mode=rw: SQLite would otherwise make an empty database where a file is missing.
    db = sqlite3.connect(f"{file.path.as_uri()}?mode=rw", uri=True, isolation_level=None, cached_statements=256)
    try:
        db.execute(f"PRAGMA busy_timeout = {int(file.busy_ms)}")
        db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        db.close()
        raise
    return db
