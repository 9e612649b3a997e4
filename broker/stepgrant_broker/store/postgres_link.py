"""One connection to PostgreSQL, for one thread: rounds of prepared statements, each round in one round trip.

Rules:
* psycopg connects and its `pq` speaks; its cursors are left out, because a round of eight statements costs them four
  times the processor (DECISIONS.md).
* A thread only ever waits in `poll`, which lets others run, and never longer than `patience_s`.
* After `Lost` the link opens a new connection at its next round.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store.faults import RETRY_MS
from stepgrant_broker.store.postgres_faults import Lost, Refused, not_connected
from stepgrant_broker.store.postgres_sql import SESSION
from stepgrant_broker.store.postgres_wire import BINARY, DECODERS, encoded

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

    from stepgrant_broker.store.asking import Ask
    from stepgrant_broker.store.statements import Text

PAUSE_S: Final = 0.25
"""After a connection was refused, how long no other is tried: those who wait in line are told at once."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How connections are made. Times in seconds; `application` is what `pg_stat_activity` shows."""

    application: str = "stepgrant"
    connect_s: int = 5
    statement_s: float = 15.0
    lock_s: float = 5.0
    idle_s: float = 5.0

    @property
    def patience_s(self) -> float:
        """When a server that says nothing is given up: later than it would give up by itself."""
        return self.statement_s + 5


class Answer(NamedTuple):
    """What one statement did: how many rows it changed, those that it gave, and the word for it, such as COMMIT."""

    changed: int
    rows: list[tuple[Any, ...]]
    word: bytes


class Link:
    """Opens by itself. `url` holds the password and is never shown."""

    def __init__(self, url: str, manner: Manner) -> None:
        self._url = url
        self._manner = manner
        self._connection: psycopg.Connection[Any] | None = None
        self._poll = select.poll()
        self._fd = -1
        self._prepared: dict[Text, tuple[bytes, list[Callable[[bytes], Any]] | None]] = {}
        self._owed: list[list[Expected]] = []
        self._names = 0
        self._not_before = 0.0

    def __repr__(self) -> str:
        """Without the address."""
        return "Link()"

    def round(self, asks: Sequence[Ask]) -> list[Answer]:
        """Send all and wait for their answers. Raises `Refused` (the first error), `Lost`, `StoreUnavailable`."""
        answers, error = self.attempt(asks)
        if error is not None:
            raise error
        return answers

    def attempt(self, asks: Iterable[Ask], head: int = 0) -> tuple[list[Answer], Refused | None]:
        """The answers until the first error, and the error. Raises `Lost`, `StoreUnavailable`.

        `head`: so many go out while the others are made. Raises what making raises: those before it are done then.
        """
        conn = self._open()
        try:
            self._drain(conn)
            kinds = self._send(conn, asks, head)
            self._flush(conn)
            return self._receive(conn, kinds)
        except psycopg.Error:
            self.close()
            raise Lost from None
        except Lost:
            self.close()
            raise

    def look(self) -> None:
        """For what makes a round's statements: raises `Lost` if the server went away by now."""
        try:
            while self._ready(select.POLLIN, 0):
                self._open().consume_input()
        except psycopg.Error:
            raise Lost from None

    def leave(self, ask: Ask) -> None:
        """Send one statement whose answer nobody waits for; the next round finds it. Never raises."""
        conn = self._connection.pgconn if self._connection is not None else None
        if conn is None:
            return
        try:
            self._owed.append(self._send(conn, [ask]))
            self._flush(conn)
        except (psycopg.Error, Lost):
            self.close()

    def close(self) -> None:
        """Close the connection; whatever was under way on it is rolled back."""
        connection, self._connection = self._connection, None
        self._prepared.clear()
        self._owed.clear()
        if connection is not None:
            # By the number that was registered: a connection that broke has none any more, and a number left behind
            # would make every later wait return at once.
            with contextlib.suppress(KeyError):
                self._poll.unregister(self._fd)
            with contextlib.suppress(psycopg.Error):
                connection.close()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def _open(self) -> PGconn:
        if self._connection is None:
            if time.monotonic() < self._not_before:
                raise StoreUnavailable("PostgreSQL cannot be reached", retry_after_ms=RETRY_MS)
            try:
                self._connection = self._connect()
            except psycopg.Error as error:
                self._not_before = time.monotonic() + PAUSE_S
                raise not_connected(error) from None
        return self._connection.pgconn

    def _connect(self) -> psycopg.Connection[Any]:
        manner = self._manner
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=manner.connect_s,
            application_name=manner.application,
            client_encoding="utf8",
            keepalives=1,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=int(manner.patience_s * 1000),
        )
        try:
            times = {"statement_ms": manner.statement_s, "lock_ms": manner.lock_s, "idle_ms": manner.idle_s}
            setting = SESSION.format(**{name: int(seconds * 1000) for name, seconds in times.items()})
            _require(connection.pgconn.exec_(setting.encode()))
            _refuse_standby(connection.pgconn.exec_(b"SELECT pg_is_in_recovery()"))
            connection.pgconn.nonblocking = 1
            connection.pgconn.enter_pipeline_mode()
            self._fd = connection.fileno()
            self._poll.register(self._fd, select.POLLIN)
        except BaseException:
            connection.close()
            raise
        return connection

    def _send(self, conn: PGconn, asks: Iterable[Ask], head: int = 0) -> list[Expected]:
        """Queue the statements; what is expected back, in order."""
        expected: list[Expected] = []
        fresh: dict[Text, bytes] = {}
        try:
            for number, asked in enumerate(asks, 1):
                text = asked.text
                values, formats = encoded(asked.places)
                name = self._prepared[text][0] if text in self._prepared else fresh.get(text)
                if name is None:
                    self._names += 1
                    name = fresh[text] = b"s%d" % self._names
                    conn.send_prepare(name, text.sql.encode())
                    expected.append((text, name))
                conn.send_query_prepared(name, values, formats, result_format=BINARY)
                expected.append((text, None))
                if number == head:
                    conn.flush()
        except BaseException:
            conn.pipeline_sync()
            self._owed.append(expected)
            raise
        conn.pipeline_sync()
        return expected

    def _receive(self, conn: PGconn, expected: Sequence[Expected]) -> tuple[list[Answer], Refused | None]:
        results: list[PGresult] = []
        while (result := self._result(conn)).status != ExecStatus.PIPELINE_SYNC:
            results.append(result)
        answers: list[Answer] = []
        for number, ((text, name), result) in enumerate(zip(expected, results, strict=True), 1):
            if result.status == ExecStatus.FATAL_ERROR:
                return answers, _refused(result, last=number == len(expected))
            if name is not None:
                self._prepared[text] = (name, None)
            else:
                answers.append(self._answer(text, result))
        return answers, None

    def _answer(self, text: Text, result: PGresult) -> Answer:
        if result.status != ExecStatus.TUPLES_OK:
            return Answer(result.command_tuples or 0, [], result.command_status or b"")
        name, decoders = self._prepared[text]
        width = result.nfields
        if decoders is None:
            decoders = [DECODERS.get(result.ftype(column), bytes.decode) for column in range(width)]
            self._prepared[text] = (name, decoders)
        value = result.get_value
        rows = [
            tuple(
                [None if (found := value(row, column)) is None else decoders[column](found) for column in range(width)]
            )
            for row in range(result.ntuples)
        ]
        return Answer(0, rows, b"")

    def _drain(self, conn: PGconn) -> None:
        while self._owed:
            self._receive(conn, self._owed[0])
            del self._owed[0]

    def _result(self, conn: PGconn) -> PGresult:
        while True:
            while conn.is_busy():
                self._wait(select.POLLIN)
                conn.consume_input()
            result = conn.get_result()
            if result is not None:
                return result
            if conn.status != ConnStatus.OK:
                raise Lost

    def _flush(self, conn: PGconn) -> None:
        while conn.flush():
            if self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
                conn.consume_input()

    def _wait(self, events: int) -> int:
        """Wait for the socket. Raises `Lost` after `patience_s`."""
        ready = self._ready(events, self._manner.patience_s)
        if not ready:
            raise Lost
        return ready

    def _ready(self, events: int, seconds: float) -> int:
        """What the socket is ready for, within the time; 0 for nothing."""
        if self._connection is None:
            raise Lost
        self._poll.modify(self._fd, events)
        ready = self._poll.poll(seconds * 1000)
        return ready[0][1] if ready else 0


Expected: TypeAlias = "tuple[Text, bytes | None]"
"""A result to come: of the statement itself, or (with a name) of its preparation."""


def _refuse_standby(found: PGresult) -> None:
    """An address may lead to a standby while others fail over: what it shows is old, and it never writes."""
    _require(found)
    if found.get_value(0, 0) != b"f":
        raise psycopg.errors.ReadOnlySqlTransaction("a standby")


def _require(result: PGresult) -> None:
    """Raises `psycopg.OperationalError` unless the session is set up as it must be."""
    if result.status not in {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}:
        raise psycopg.OperationalError("the session could not be set up")


def _refused(result: PGresult, *, last: bool) -> Refused:
    state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")
    constraint = (result.error_field(DiagnosticField.CONSTRAINT_NAME) or b"").decode("utf-8", "replace")
    return Refused(state, constraint, last=last)
