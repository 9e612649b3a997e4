"""What all calls of a person about one run share: the stored answer, a journal in the person's name, one commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from stepgrant_broker.domain.values import replace
from stepgrant_broker.usecases.leases import transact_and_take_back
from stepgrant_broker.usecases.transact import Change, Repeat, answered_before, by_person, journal_for, scope_of

if TYPE_CHECKING:
    from stepgrant_broker.domain.caller import PersonCaller, Request
    from stepgrant_broker.domain.journal import Journal
    from stepgrant_broker.domain.writes import Loaded, Query
    from stepgrant_broker.usecases.context import Ports

Begin = Callable[["Loaded"], "Journal"]
Act = Callable[["Loaded", Begin], Awaitable[Change[dict[str, Any]]]]
"""Decides on what was loaded. What the person asks about must be there before the journal is begun over it."""


async def person_call(
    ports: Ports, person: PersonCaller, query: Query, request: Request, *, call: str, target: str, act: Act
) -> dict[str, Any]:
    """Run `act`, commit, and answer; the answer is stored for the Idempotency-Key.

    Raises the errors of `answered_before`, `journal_for`, `transact` and `act`.
    """
    scope = scope_of(person.tenant, person.id, call, target, None, request.idempotency_key)

    def begin(loaded: Loaded) -> Journal:
        return journal_for(ports, loaded, by_person(person))

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        before = answered_before(ports, loaded, request)
        if before is not None:
            return Repeat(before)
        change = await act(loaded, begin)
        return replace(change, stored=change.answer)

    return await transact_and_take_back(ports, replace(query, answer=scope), work, request=request)
