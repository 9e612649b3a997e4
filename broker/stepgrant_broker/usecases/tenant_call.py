"""What all changes to a tenant's own chain share: enrolments, people, policy, secrets, kill switches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import DuplicateRequest, Forbidden, InvalidRequest
from stepgrant_broker.domain.ids import TENANT
from stepgrant_broker.domain.journal import By, Journal
from stepgrant_broker.domain.writes import Loaded, Query, Row
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.transact import (
    Change,
    Repeat,
    answered_before,
    journal_for,
    scope_of,
    transact,
)

LOCAL = By("person", "local administrator")
"""Whoever can run commands on the broker's own host, with its key file: it needs no token."""


@dataclass(frozen=True, slots=True)
class Effectuated:
    """What an administrative act wrote and answers. `kept` is stored for its Idempotency-Key (never a secret)."""

    answer: dict[str, Any]
    rows: tuple[Row, ...] = ()
    raise_guard: bool = False
    keep: bool = True


Act = Callable[["Journal", "Loaded"], Effectuated]


def require_operator(person: PersonCaller | None, what: str) -> None:
    """Raises `Forbidden`. `None` is the local administrator."""
    if person is not None and "operator" not in person.roles:
        raise Forbidden(f"only an operator can {what}")


async def tenant_call(
    ports: Ports,
    tenant: str,
    person: PersonCaller | None,
    *,
    call: str,
    act: Act,
    request: Request | None = None,
) -> dict[str, Any]:
    """Run `act` on the tenant's chain, commit, and answer. A tenant begins with its first entry."""
    if not TENANT.fullmatch(tenant):
        raise InvalidRequest("a tenant is 1 to 63 of a-z 0-9 and -, and begins with a letter or digit", field="tenant")
    scope = None
    if request is not None and person is not None:
        scope = scope_of(tenant, person.id, call, request.target, None, request.idempotency_key)
    by = LOCAL if person is None else By("person", person.name)

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        if scope is not None and request is not None:
            before = answered_before(ports, loaded, request)
            if before is not None:
                return Repeat(before)
            if loaded.answer is not None and loaded.answer.expires_at > loaded.now:
                # Its answer held a secret, which is shown once and kept nowhere.
                raise DuplicateRequest("this was done; what it made was shown once", field="Idempotency-Key")
        key = loaded.tenant_key or ports.new_chain_key(tenant, "")
        journal = journal_for(ports, loaded, by, key=key)
        done = act(journal, loaded)
        rows = done.rows if loaded.tenant_key is not None else (key, *done.rows)
        stored = done.answer if done.keep else None
        return Change(done.answer, journal, rows=rows, raise_guard=done.raise_guard, stored=stored)

    return await transact(ports, Query(tenant, answer=scope), work, request=request if scope else None)


def operator_action(journal: Journal, action: str, **body: Any) -> None:  # noqa: ANN401 - members of the entry's body
    """Write what a person did in administration."""
    members = {name: value for name, value in body.items() if value is not None}
    journal.add(EntryType.OPERATOR_ACTION, body={"action": action, **members})
