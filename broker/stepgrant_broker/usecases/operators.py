"""People: an operator token each, of which only the SHA-256 is kept; roles `approver` and `operator`, and groups."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from stepgrant_broker.domain.caller import PersonCaller, Request
from stepgrant_broker.domain.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from stepgrant_broker.domain.ids import NAME
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.writes import Loaded, Operator
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.tenant_call import Effectuated, operator_action, require_operator, tenant_call

ROLES: Final = frozenset({"approver", "operator"})
TOKEN_PREFIX: Final = "sgo_"  # noqa: S105 - the public beginning of every operator token
NAME_MAX: Final = 200


def token_hash(token: str) -> str:
    """What is kept of a token: 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def view(operator: Operator, name: str) -> dict[str, Any]:
    """A person on the wire."""
    return {
        "id": operator.id,
        "name": name,
        "roles": list(operator.roles),
        "groups": list(operator.groups),
        "created_at": operator.created_at,
        "removed_at": operator.removed_at,
    }


def _refuse_bad(name: str, roles: list[str], groups: list[str]) -> None:
    if not roles or not set(roles) <= ROLES:
        raise InvalidRequest(f"roles are of {', '.join(sorted(ROLES))}", field="roles")
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise InvalidRequest(f"name is 1 to {NAME_MAX} printable characters", field="name")
    if any(not NAME.fullmatch(team) for team in groups):
        raise InvalidRequest("groups are names of letters, digits and . _ / : @ -", field="groups")


async def create_operator(
    ports: Ports,
    tenant: str,
    person: PersonCaller | None,
    *,
    name: str,
    roles: Iterable[str],
    groups: Iterable[str] = (),
    another_token: bool = False,
    request: Request | None = None,
) -> dict[str, Any]:
    """Create a person and a token, which is in this answer and nowhere else.

    `another_token`: it is meant that somebody of this name is there already. Each counts as a person of his own, also
    where policy asks for several. Raises `Conflict`, `Forbidden`, `InvalidRequest`.
    """
    require_operator(person, "create an operator")
    wanted, teams = sorted(set(roles)), sorted(set(groups))
    _refuse_bad(name, wanted, teams)
    token = TOKEN_PREFIX + ports.ids.random(32).hex()
    people = await ports.reads.operators(tenant)
    living = [one.id for one, known in people if known == name and one.removed_at is None]

    def act(journal: Journal, _: Loaded) -> Effectuated:
        if living and not another_token:
            raise Conflict(
                f"{name} is there already ({living[0]}), and records would not tell the two apart; remove that one "
                "first, or say another_token if a second one is meant, who then counts as another person",
                field="name",
            )
        name_c = journal.commit.value("operator.name", name)
        operator = Operator(
            id="opr_" + ports.ids.ulid(journal.now),
            tenant=tenant,
            name_c=name_c,
            roles=tuple(wanted),
            groups=tuple(teams),
            token_hash=token_hash(token),
            created_at=journal.now,
        )
        told = {"name_c": name_c, "roles": wanted, "groups": teams, "token_hash": operator.token_hash}
        operator_action(journal, "operator_created", operator=operator.id, **told)
        return Effectuated({**view(operator, name), "token": token}, (operator,), keep=False)

    return await tenant_call(ports, tenant, person, call="create operator", act=act, request=request)


async def remove_operator(
    ports: Ports, tenant: str, person: PersonCaller | None, operator_id: str, request: Request | None = None
) -> dict[str, Any]:
    """Remove a person; the token stops working at once. Raises `Forbidden`, `NotFound`."""
    require_operator(person, "remove an operator")
    found = next((o for o in await ports.reads.operators(tenant) if o[0].id == operator_id), None)
    if found is None or found[0].removed_at is not None:
        raise NotFound("no such operator")
    known, name = found

    def act(journal: Journal, _: Loaded) -> Effectuated:
        gone = replace(known, removed_at=journal.now)
        operator_action(journal, "operator_removed", operator=operator_id)
        return Effectuated(view(gone, name), (gone,), raise_guard=True)

    return await tenant_call(ports, tenant, person, call="remove operator", act=act, request=request)


async def authenticate_operator(ports: Ports, token: str) -> PersonCaller:
    """The person behind a bearer token. Raises `InvalidToken` (as `Unauthenticated`)."""
    found = await ports.reads.operator_by_token(token_hash(token)) if token.startswith(TOKEN_PREFIX) else None
    if found is None or found[0].removed_at is not None:
        raise Unauthenticated("the operator token is not known; create one with `stepgrant operator create`")
    operator, name = found
    return PersonCaller(operator.tenant, operator.id, name, frozenset(operator.roles), frozenset(operator.groups))
