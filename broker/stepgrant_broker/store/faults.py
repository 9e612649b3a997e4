"""What can go wrong with a database, as domain errors.

Rules:
* No adapter's exception passes the port. A detail says what is wrong and what to do, never a value of a row.
* A set that contradicts itself or the schema is a bug of ours: it is refused alone, and never tried again.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from stepgrant_broker.domain.errors import StepgrantFault, StoreUnavailable

RETRY_MS: Final = 1000

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, nothing that was acknowledged is lost",
    sqlite3.SQLITE_BUSY: "another process holds the database's write lock",
    sqlite3.SQLITE_LOCKED: "another connection holds a lock on the database",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged; stop the broker and restore it",
    sqlite3.SQLITE_NOTADB: "the file is not a database; stop the broker and restore it",
    sqlite3.SQLITE_READONLY: "the database cannot be written; check the owner and mode of the file and its folder",
    sqlite3.SQLITE_PERM: "the database may not be opened; check the owner and mode of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened; check that it is there and may be read and written",
    sqlite3.SQLITE_IOERR: "the disk gives an error when the database is read or written",
    sqlite3.SQLITE_NOMEM: "there is no memory left for the database",
}
LASTING: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
    }
)
"""After these a connection is closed, and a new one is opened for the next call."""


class WriteSetMalformed(StepgrantFault):
    """A write set contradicts itself or the schema: a bug of ours, never the caller's. Nothing of it was written."""


class SchemaRefused(StoreUnavailable):
    """The database cannot be used by this version: see the classes below."""


class SchemaMissing(SchemaRefused):
    """There is no database, it is empty, or it is of an older version: migrate it."""


class SchemaNewer(SchemaRefused):
    """A newer version of Stepgrant wrote it."""


class SchemaForeign(SchemaRefused):
    """It is something else: another program's database, or no database at all."""


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when the error did not come from SQLite's own library."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def unavailable(error: BaseException) -> StoreUnavailable:
    """The domain error for whatever stopped the store."""
    if isinstance(error, StoreUnavailable):
        return error
    if not isinstance(error, sqlite3.Error):
        return StoreUnavailable(f"the store failed ({type(error).__name__})", retry_after_ms=RETRY_MS)
    advice = _ADVICE.get(primary_code(error), "the database gives an error")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreUnavailable(f"{advice} ({name})", retry_after_ms=RETRY_MS)


def is_of_one_set(error: BaseException) -> bool:
    """True when only the set that was being applied is wrong, so that the others of its transaction can go on."""
    if isinstance(error, sqlite3.Error):
        own = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
        return isinstance(error, own)
    return isinstance(error, Exception)


def malformed(error: BaseException) -> WriteSetMalformed:
    """The domain error for a set that the database did not take. SQLite's messages name columns, never values."""
    said = str(error) if isinstance(error, sqlite3.IntegrityError) else type(error).__name__
    return WriteSetMalformed(f"the write set does not fit the schema: {said}")
