"""A few threads that look things up in PostgreSQL, each with its own connection, each plan in one read-only view.

Rules:
* A view is one transaction (REPEATABLE READ READ ONLY). Nobody waits for its COMMIT: it goes out behind the last round.
* A look that lost its connection is taken once more on a new one; it changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.store import postgres_sql as sql
from stepgrant_broker.store.asking import Ask, Look
from stepgrant_broker.store.inbox import Failed, Inbox, answer, start
from stepgrant_broker.store.postgres_faults import Lost, told
from stepgrant_broker.store.rows import RowDamaged

if TYPE_CHECKING:
    from stepgrant_broker.store.postgres_link import Link

T = TypeVar("T")


class PostgresReaders:
    """A thread for each of the links, and their queues."""

    def __init__(self, links: Sequence[Link], *, capacity: int) -> None:
        self._inboxes: list[Inbox[Look[Any]]] = [Inbox(capacity) for _ in links]
        self.threads = [
            start(f"stepgrant-reader-{number}", lambda link=link, inbox=inbox: _serve(link, inbox))  # type: ignore[misc]
            for number, (link, inbox) in enumerate(zip(links, self._inboxes, strict=True))
        ]

    async def run(self, look: Look[T]) -> T:
        """What the plan returns. Raises `StoreUnavailable`, and the domain errors of the plan."""
        inbox = min(self._inboxes, key=lambda inbox: inbox.load)
        return cast("T", await inbox.put(look))

    def close(self) -> None:
        """Refuse new work and let the threads come to their end."""
        for inbox in self._inboxes:
            inbox.close()


def _serve(link: Link, inbox: Inbox[Look[Any]]) -> None:
    while _turn(link, inbox):
        continue
    link.close()


def _turn(link: Link, inbox: Inbox[Look[Any]]) -> bool:
    """One call; what it read is not kept while waiting for the next."""
    jobs = inbox.take(1)
    for job in jobs:
        if not job.future.cancelled():
            answer([(job, _outcome(link, job.work))])
    return bool(jobs)


def _outcome(link: Link, look: Look[Any]) -> object:
    try:
        try:
            return view(link, look)
        except Lost:
            return view(link, look)
    except RowDamaged as error:
        return Failed(StoreUnavailable(f"{error}; stop the broker and restore the database"))
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told and the thread lives on
        return Failed(told(error))


def view(link: Link, look: Look[T]) -> T:
    """What the plan returns, of one moment. Raises what it raises, `Lost`, `Refused`, `StoreUnavailable`."""
    plan = look()
    before = [Ask(sql.BEGIN_VIEW, ())]
    try:
        asks = next(plan)
        while True:
            answers = link.round([*before, *asks])
            found = [done.rows for done in answers[len(before) :]]
            before = []
            asks = plan.send(found)
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        link.leave(Ask(sql.COMMIT, ()))
