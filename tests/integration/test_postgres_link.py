"""One connection to PostgreSQL: the first statements of a round are done while the last are made, and may be lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import pytest

from cuts import ALL_HERE
from stepgrant_broker.store import postgres_sql as sql
from stepgrant_broker.store.asking import Ask
from stepgrant_broker.store.postgres_faults import Lost
from stepgrant_broker.store.postgres_link import Link, Manner
from stepgrant_broker.store.postgres_writer import PostgresWriter, _Unknown
from stepgrant_broker.store.statements import Text

if TYPE_CHECKING:
    from stepgrant_broker.store.postgres_applying import Part
    from stepgrant_services import PostgresServer

PATIENCE_S = 20
LOCK = (0x7E57, 7)
HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND granted"
NUMBER = Text("SELECT $1::int", ("number",))


@pytest.fixture
def link(postgres_server: PostgresServer) -> Iterator[Link]:
    made = Link(postgres_server.create_database(), Manner())
    yield made
    made.close()


@pytest.fixture
def watcher(link: Link) -> Iterator[psycopg.Connection[tuple[int]]]:
    with psycopg.connect(link._url, autocommit=True) as connection:
        yield connection


def held(watcher: psycopg.Connection[tuple[int]]) -> int:
    """How many hold the lock."""
    (found,) = watcher.execute(HELD, LOCK).fetchall()
    return found[0]


def taking(watcher: psycopg.Connection[tuple[int]], seen: list[int]) -> Iterator[Ask]:
    """Begin and take a lock, and tell whether it was taken before the rest was asked for."""
    yield Ask(sql.BEGIN_WRITE, ())
    yield Ask(sql.GUARDED, LOCK)
    until = time.monotonic() + PATIENCE_S
    while not held(watcher) and time.monotonic() < until:
        time.sleep(0.005)
    seen.append(held(watcher))


@pytest.mark.timeout(3 * PATIENCE_S)
def test_the_head_is_done_while_the_rest_is_made(link: Link, watcher: psycopg.Connection[tuple[int]]) -> None:
    seen: list[int] = []

    def asks() -> Iterator[Ask]:
        yield from taking(watcher, seen)
        yield Ask(NUMBER, (5,))
        yield Ask(sql.COMMIT, ())

    answers, error = link.attempt(asks(), head=2)
    assert seen == [1]
    assert error is None
    assert [answer.rows for answer in answers[2:]] == [[(5,)], []]
    assert answers[-1].word == b"COMMIT"
    assert held(watcher) == 0


@pytest.mark.timeout(3 * PATIENCE_S)
@pytest.mark.parametrize("known", [False, True], ids=["first", "again"])
def test_what_cannot_be_made_leaves_a_transaction_to_roll_back(
    link: Link, watcher: psycopg.Connection[tuple[int]], *, known: bool
) -> None:
    """The answers of what went out are owed: each later one still belongs to its own statement."""
    seen: list[int] = []
    if known:
        link.round([Ask(sql.BEGIN_WRITE, ()), Ask(sql.GUARDED, LOCK), Ask(sql.ROLLBACK, ())])

    def asks() -> Iterator[Ask]:
        yield from taking(watcher, seen)
        yield Ask(NUMBER, (object(),))

    with pytest.raises(TypeError, match="has no column"):
        link.attempt(asks(), head=2)
    assert seen == [1]
    link.leave(Ask(sql.ROLLBACK, ()))
    assert [answer.rows for answer in link.round([Ask(NUMBER, (number,)) for number in (1, 2)])] == [[(1,)], [(2,)]]
    assert held(watcher) == 0


@pytest.mark.parametrize(("values", "last"), [((0, 1), False), ((1, 0), True)])
def test_an_error_says_whether_it_is_the_last_ones(link: Link, values: tuple[int, ...], *, last: bool) -> None:
    """What ends a session in the place of its COMMIT leaves the fate open; before it, nothing is there."""
    for _ in ("as it is prepared", "prepared"):
        answers, error = link.attempt([Ask(Text("SELECT 8 / $1::int", ("number",)), (value,)) for value in values])
        assert len(answers) == last
        assert error is not None
        assert (error.sqlstate, error.last) == ("22012", last)


@pytest.mark.timeout(3 * PATIENCE_S)
def test_what_is_lost_while_the_rest_is_made_is_not_in_doubt(
    link: Link, watcher: psycopg.Connection[tuple[int]]
) -> None:
    """COMMIT did not go out, so nobody is told that it may have been."""
    writer = PostgresWriter(link, clock=None, failpoints=None, capacity=1)
    cut: list[int] = []

    def found() -> Iterator[Part]:
        cut.append(len(watcher.execute(ALL_HERE).fetchall()))
        yield from ()

    link.round([Ask(sql.BEGIN_WRITE, ()), Ask(sql.ROLLBACK, ())])
    with pytest.raises((Lost, _Unknown)) as met:
        writer._through([Ask(sql.BEGIN_WRITE, ())], found())
    writer.inbox.close()
    writer.thread.join()
    assert cut == [1]
    assert met.type is Lost
    assert not link.is_open
