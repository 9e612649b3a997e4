"""What can go wrong with PostgreSQL, as domain errors. No message of the server or the driver is passed on.

Rules:
* A detail says what is wrong and what to do; never an address, a login, a password or a value of a row.
* An error in the middle of a transaction means that nothing of it is there. Only a COMMIT can leave that open.
"""

from __future__ import annotations

from typing import Final

import psycopg

from stepgrant_broker.domain.errors import FateUnknown, StepgrantFault, StoreUnavailable
from stepgrant_broker.domain.refusals import StoreRefusal, VersionMoved
from stepgrant_broker.store.faults import RETRY_MS, WriteSetMalformed, unavailable

_ADVICE: Final = {
    "28P01": "PostgreSQL refuses the broker's login; check user and password in database_url",
    "28000": "PostgreSQL refuses the broker's login; check the user in database_url and the server's pg_hba.conf",
    "3D000": "there is no such database on the server; create it, then run `stepgrant db migrate`",
    "42501": "the broker's login may not use its tables; grant it SELECT, INSERT, UPDATE and DELETE",
    "42P01": "the database lacks tables; run `stepgrant db migrate`",
    "42703": "the database lacks columns; run `stepgrant db migrate`",
    "25006": "the server only answers reads; name the primary in database_url, not a replica",
    "53100": "the server's disk is full; make room, nothing that was acknowledged is lost",
    "53200": "the server has no memory left",
    "53300": "the server has no connection left; raise max_connections or run fewer brokers",
    "55P03": "another transaction holds a lock for too long",
    "57014": "the server did not answer in time",
    "57P01": "the server is shutting down",
    "57P02": "the server crashed and starts again",
    "57P03": "the server is starting",
}
_SAID: Final = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ('database "', "3D000"),
    ('role "', "28P01"),
    ("too many", "53300"),
    ("remaining connection slots", "53300"),
    ("starting up", "57P03"),
    ("not yet accepting connections", "57P03"),
    ("shutting down", "57P01"),
    ("recovery", "57P03"),
)
"""libpq gives no code for a connection that was refused, only words."""
AGAIN: Final = frozenset({"40001", "40P01"})
"""Two transactions got in each other's way, and PostgreSQL undid one of them."""
ENDING: Final = ("08", "57P")
READ_ONLY: Final = "25006"


class Lost(Exception):
    """The connection is gone. Whatever was under way on it is rolled back, unless it was a COMMIT."""


class Refused(Exception):
    """The server answered a statement with an error; its transaction is to be rolled back. `last`: of its round."""

    def __init__(self, sqlstate: str, constraint: str = "", *, last: bool = False) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.last = last

    @property
    def of_one_set(self) -> bool:
        """True when only the set that was being applied is wrong: its values, or the schema's rules about them."""
        return self.sqlstate[:2] in {"22", "23"}


def not_connected(error: BaseException | None) -> StoreUnavailable:
    """Why there is no connection."""
    said = str(error).lower()
    code = (error.sqlstate if isinstance(error, psycopg.Error) else None) or next(
        (code for words, code in _SAID if words in said), ""
    )
    return _named(code, "PostgreSQL cannot be reached; check that it runs, and host and port in database_url")


def told(error: Exception) -> StepgrantFault:
    """The domain error for whatever stopped a call."""
    if isinstance(error, StepgrantFault):
        return error.with_traceback(None)
    if isinstance(error, Lost):
        return _named("", "the connection to PostgreSQL was lost")
    if isinstance(error, Refused):
        return _named(error.sqlstate, "PostgreSQL gives an error")
    return unavailable(error)


def all_told(error: Exception) -> Exception:
    """What every caller of a batch is told of which nothing is there."""
    if isinstance(error, Refused) and error.sqlstate in AGAIN:
        return VersionMoved("others wrote the same rows at every try")
    if isinstance(error, StoreRefusal):
        return error.with_traceback(None)
    fault = told(error)
    return StoreUnavailable(fault.detail, retry_after_ms=fault.retry_after_ms or RETRY_MS)


def untouched() -> StoreUnavailable:
    """Nothing of it is there."""
    return StoreUnavailable("the connection to PostgreSQL was lost", retry_after_ms=RETRY_MS)


def fate_unknown() -> FateUnknown:
    """It may be there or not."""
    return FateUnknown(
        "the commit was sent and its reply lost; repeat with the same Idempotency-Key", retry_after_ms=RETRY_MS
    )


def malformed(error: Exception) -> WriteSetMalformed:
    """The domain error for a set that the database did not take; it names a constraint, never a value."""
    if isinstance(error, Refused):
        where = f" ({error.constraint})" if error.constraint else ""
        return WriteSetMalformed(f"the write set does not fit the schema: {error.sqlstate}{where}")
    return WriteSetMalformed(f"the write set does not fit the schema: {type(error).__name__}")


def _named(code: str, otherwise: str) -> StoreUnavailable:
    advice = _ADVICE.get(code, otherwise)
    return StoreUnavailable(f"{advice} ({code})" if code else advice, retry_after_ms=RETRY_MS)
