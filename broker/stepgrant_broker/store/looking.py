"""The reads behind `Reads` and `SecretSource` that are no pages, as plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgrant import canonical
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.reads import Backlog, Due, StoredEntry
from stepgrant_broker.domain.writes import Operator, PolicyText
from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Plan, ask
from stepgrant_broker.store.queries import Queries
from stepgrant_broker.store.sealing import Clear


def entries(sql: Queries, tenant: str, chain: str, after: int, limit: int) -> Plan[tuple[StoredEntry, ...]]:
    """Entries of a chain above `after`. Raises `InvalidRequest` for a negative limit, which SQLite reads as none."""
    if limit < 0:
        raise InvalidRequest("limit is not negative", field="limit")
    (found,) = yield [ask(sql.entries, tenant=tenant, chain=chain, after=after, limit=limit)]
    return tuple(StoredEntry(*row) for row in found)


def payloads(
    sql: Queries, seal: Clear, tenant: str, chain: str, commitments: Sequence[str]
) -> Plan[dict[str, Payload]]:
    """The payloads that are there, by commitment. Raises `PayloadDamaged`."""
    asked = [ask(sql.payload, tenant=tenant, chain=chain, c=c) for c in dict.fromkeys(commitments)]
    if not asked:
        return {}
    keys, *answers = yield [ask(sql.chain_key, tenant=tenant, run=chain), *asked]
    key = rows.CHAIN_KEY.decode(keys[0]) if keys else None
    return seal.opened(key, [rows.PAYLOAD.decode(row) for answer in answers for row in answer])


def operator_by_token(sql: Queries, seal: Clear, token_hash: str) -> Plan[tuple[Operator, str] | None]:
    """The person with this token, and the name; nobody if removed, or if the name cannot be read any more.

    A person without a name could not be told from a run's principal, who must not approve.
    """
    (found,) = yield [ask(sql.operator_by_token, token_hash=token_hash)]
    return (rows.OPERATOR.decode(found[0]), _name(seal, found[0])) if found else None


def operators(sql: Queries, seal: Clear, tenant: str) -> Plan[tuple[tuple[Operator, str], ...]]:
    """All people of the tenant; an erased name is empty."""
    (found,) = yield [ask(sql.operators, tenant=tenant)]
    return tuple((rows.OPERATOR.decode(row), _name(seal, row)) for row in found)


def _name(seal: Clear, row: Sequence[Any]) -> str:
    """The name of a row of `Queries.operators`: the person, the payload, and the key of the tenant's chain."""
    behind = row[len(rows.OPERATOR.columns) :]
    kept, key = behind[: len(rows.PAYLOAD.columns)], behind[len(rows.PAYLOAD.columns) :]
    if kept[0] is None:
        return ""
    chain_key = None if key[0] is None else rows.CHAIN_KEY.decode(key)
    (payload,) = seal.opened(chain_key, [rows.PAYLOAD.decode(kept)]).values()
    try:
        name = canonical.loads(payload.body)
    except canonical.CanonicalError:
        raise rows.RowDamaged("the name of an operator is damaged") from None
    if not isinstance(name, str):
        raise rows.RowDamaged("the name of an operator is damaged")
    return name


def policies(sql: Queries, tenant: str) -> Plan[tuple[PolicyText, ...]]:
    """All activated revisions, newest first, with empty `text`."""
    (found,) = yield [ask(sql.policies, tenant=tenant)]
    return tuple(rows.POLICY.decode((*row, b"")) for row in found)


def lapsed(sql: Queries, now: int, limit: int) -> Plan[tuple[tuple[str, str], ...]]:
    """Open runs whose lease has lapsed, the longest lapsed first."""
    (found,) = yield [ask(sql.lapsed, now=now, limit=max(0, limit))]
    return tuple((tenant, run) for tenant, run in found)


def leases_due(sql: Queries, now: int, limit: int, after: Due | None) -> Plan[tuple[Due, ...]]:
    """Grants for which something outside has to be taken back, behind this one, the longest due first."""
    due_at, tenant, jti = (0, "", "") if after is None else (after.due_at, after.tenant, after.jti)
    place = {"after_due_at": due_at, "after_tenant": tenant, "after_jti": jti}
    (found,) = yield [ask(sql.leases_due, now=now, limit=max(0, limit), **place)]
    return tuple(Due(*row) for row in found)


def leases_left(sql: Queries, now: int) -> Plan[tuple[int, int | None]]:
    """How many of them there are, and since when the oldest is due."""
    (((many, oldest),),) = yield [ask(sql.leases_left, now=now)]
    return many, oldest


def backlog(sql: Queries, now: int) -> Plan[Backlog]:
    """What waits, over all tenants."""
    asked = [ask(sql.entries_waiting), ask(sql.runs_parked), ask(sql.questions_open, now=now)]
    (((entries, oldest),), ((parked,),), ((questions,),)) = yield asked
    return Backlog(entries, oldest, parked, questions)


def erasable(sql: Queries, state: str, before: int, limit: int) -> Plan[tuple[tuple[str, str], ...]]:
    """Runs that ended in this state, without open grants and not erased, the longest ended first."""
    (found,) = yield [ask(sql.erasable, state=state, before=before, limit=max(0, limit))]
    return tuple((tenant, run) for tenant, run in found)


def held(
    sql: Queries, tenant: str, agent: str | None, workload: str | None, issuer: str | None
) -> Plan[tuple[str, ...]]:
    """Runs that are not ended and have to do with any of these. NULL equals nothing: what is not asked finds none."""
    (found,) = yield [ask(sql.held, tenant=tenant, agent=agent, workload=workload, issuer=issuer)]
    return tuple(run for (run,) in found)


def had_runs(sql: Queries, tenant: str, agent: str) -> Plan[bool]:
    """Whether there is any run of this agent."""
    (found,) = yield [ask(sql.had_runs, tenant=tenant, agent=agent, limit=1)]
    return bool(found)
