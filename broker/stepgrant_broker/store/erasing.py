"""What stands behind an erased run: what fits goes with the commit that erases it, the rest in portions after it.

Rules:
* With that commit the key of the run's chain is written over: from then on whatever was sealed under it is noise.
* No transaction drops more than `PORTION` rows of a kind, so that no other run waits for the erasure of a large one.
* What a crash leaves is found by the first sweep of a process: no index tells of it, and every key passes by once.
* No index finds a stored answer by its run: every commit would have to keep one. They are looked for before the commit,
  by a thread that only looks. One that comes in between lives until its time is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, exists, literal_column, select
from sqlalchemy.engine import Dialect

from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Plan, ask
from stepgrant_broker.store.statements import PORTION, Statements, at_most, compile_for
from stepgrant_broker.store.tables.ledger import ERASED

if TYPE_CHECKING:
    from stepgrant_broker.store.forgetting import Run

AT_ONCE: Final = 100
"""So many runs a look for leftovers gives."""


class ErasingQueries:
    """What is asked about it, compiled for a dialect."""

    def __init__(self, dialect: Dialect) -> None:
        answers, keys, payloads = rows.ANSWER.table, rows.CHAIN_KEY.table, rows.PAYLOAD.table
        mine = select(answers.c.scope).where(answers.c.tenant == bindparam("tenant"), answers.c.run == bindparam("run"))
        self.answers = compile_for(dialect, mine)
        behind = exists(
            select(payloads.c.c).where(payloads.c.tenant == keys.c.tenant, payloads.c.chain == keys.c.run)
        ).correlate(keys)
        gone = keys.c.key_id == literal_column(f"'{ERASED['key_id']!s}'")
        left = select(keys.c.tenant, keys.c.run).where(gone, behind)
        self.left = compile_for(dialect, at_most(left, "limit"))


def answers_of(sql: ErasingQueries, tenant: str, run: str) -> Plan[tuple[str, ...]]:
    """The scopes of the answers that are stored about a run."""
    (found,) = yield [ask(sql.answers, tenant=tenant, run=run)]
    return tuple(scope for (scope,) in found)


def left_behind(sql: ErasingQueries) -> Plan[tuple[tuple[str, str], ...]]:
    """Some erased runs of which payloads are left, as (tenant, run)."""
    (found,) = yield [ask(sql.left, limit=AT_ONCE)]
    return tuple((tenant, run) for tenant, run in found)


def drop_payloads(sql: Statements, run: Run, tenant: str, name: str) -> bool:
    """Drop a portion of an erased run's payloads; whether that was all."""
    gone, _ = run(sql.drop_payloads, sql.drop_payloads.places({"w_tenant": tenant, "w_run": name, "w_limit": PORTION}))
    return gone < PORTION


def drop_answers(sql: Statements, run: Run, tenant: str, scopes: Sequence[str]) -> None:
    """Drop these stored answers."""
    for scope in scopes:
        run(sql.drop_answer, sql.drop_answer.places({"w_tenant": tenant, "w_scope": scope}))
