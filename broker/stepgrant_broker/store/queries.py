"""Every statement that only looks, written once with SQLAlchemy Core and compiled once for a dialect.

Rules:
* Each names the tenant, except the four that find out whose it is (an enrolment by its id, a person by a token) or
  work for all (all tenants, lapsed leases).
* What `load` asks is found by key or by a partial index; its cost does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, func, literal_column, or_, select, tuple_
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement, FromClause

from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.fold.approvals import UNDECIDED
from stepgrant_broker.domain.state import IN_FLIGHT, ApprovalStatus, FailStatus, RunState, StepState
from stepgrant_broker.store import rows
from stepgrant_broker.store.heads import Head
from stepgrant_broker.store.statements import ENTRIES, Moment, Text, at_most, by_index, columns_of, compile_for, given
from stepgrant_broker.store.tables.base import ASKED, CALLED, DUE, HELD, KEPT, LIVE, OPEN, UNENDED, UNFINISHED, WAITING
from stepgrant_broker.store.tables.ledger import ERASED

UNCONSUMED: Final = (ApprovalStatus.PENDING, ApprovalStatus.APPROVED, ApprovalStatus.DENIED)


def words(column: ColumnElement[Any], values: Sequence[str]) -> ColumnElement[bool]:
    """`column` is one of these constants, which are words of ours, never input."""
    return or_(*(column == literal_column(f"'{value}'") for value in values))


def is_kept(keys: FromClause) -> ColumnElement[bool]:
    """The key of a chain was not destroyed."""
    return keys.c.key_id != literal_column(f"'{ERASED['key_id']!s}'")


def said(condition: str) -> ColumnElement[bool]:
    """The condition of a partial index, word by word, so that the index is used."""
    return literal_column(condition)


def suspected(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """People were asked whether the step repeats another one, and nothing of it was started (`domain.lost_ids`)."""
    steps = rows.STEP.table.c
    asked = and_(steps.duplicate_of.is_not(None), steps.started_ever.is_(False), *conditions)
    return and_(asked, words(steps.state, sorted(UNDECIDED)))


class Queries:
    """The queries; each bind has the name of its column. `by_id` and `by_key` begin every `load`."""

    def __init__(self, dialect: Dialect, moment: Moment = given) -> None:
        self._dialect = dialect
        self.moment = moment
        self._now = moment("now")
        self.by_id = Head(dialect, moment, ["id"])
        self.by_key = Head(dialect, moment, ["agent", "key"])
        self.now = self.text(select(self._now))
        self._of_run()
        self._of_lost_ids()
        self._of_chain()
        self._of_administration()

    def text(self, statement: ClauseElement) -> Text:
        """Any other query."""
        return compile_for(self._dialect, statement)

    def _by(
        self,
        codec: rows.Codec[Any],
        *names: str,
        also: Sequence[ColumnElement[bool]] = (),
        order: Sequence[ColumnElement[Any]] = (),
        limit: bool = False,
        index: str | None = None,
    ) -> Text:
        table = codec.table
        equal = [table.c[name] == bindparam(name) for name in names]
        query = select(*columns_of(codec)).where(*equal, *also).order_by(*order)
        query = query if index is None else by_index(query, table, index)
        return self.text(at_most(query, "limit") if limit else query)

    def _of_run(self) -> None:
        grants, steps, approvals = rows.GRANT.table, rows.STEP.table, rows.APPROVAL.table
        self.epochs = self._by(rows.EPOCH, "tenant", "run", order=[rows.EPOCH.table.c.epoch])
        self.step = self._by(rows.STEP, "tenant", "run", "key")
        self.steps_unfinished = self._by(
            rows.STEP, "tenant", "run", also=[said(UNFINISHED)], index="ix_steps_unfinished"
        )
        self.grant = self._by(rows.GRANT, "tenant", "jti")
        self.grants_of_step = self._by(rows.GRANT, "tenant", "run", "step", index="ix_grants_step")
        self.grants_open = self._by(rows.GRANT, "tenant", "run", also=[said(OPEN)], index="ix_grants_pending")
        newest = and_(steps.c.tenant == grants.c.tenant, steps.c.grant == grants.c.jti)
        of_unfinished = (
            select(*columns_of(rows.GRANT))
            .select_from(steps.join(grants, newest))
            .where(steps.c.tenant == bindparam("tenant"), steps.c.run == bindparam("run"), said(UNFINISHED))
            .where(grants.c.run == steps.c.run)
        )
        self.grants_of_unfinished = self.text(by_index(of_unfinished, steps, "ix_steps_unfinished"))
        # The longest-lived first: the rule looks for the one that lives longest, so the rest may be left out. Open and
        # closed ones are asked for apart, because the index that they share begins with that.
        self.grants_live = self._by(
            rows.GRANT,
            "tenant",
            "run",
            "is_open",
            also=[said(LIVE), grants.c.live_until > bindparam("now"), grants.c.epoch < bindparam("epoch")],
            order=[grants.c.live_until.desc()],
            limit=True,
            index="ix_grants_pending",
        )
        self.approval = self._by(rows.APPROVAL, "tenant", "id")
        self.approvals_of_step = self._by(rows.APPROVAL, "tenant", "run", "step", index="ix_approvals_step")
        self.approvals_unconsumed = self._by(
            rows.APPROVAL,
            "tenant",
            "run",
            also=[words(approvals.c.status, UNCONSUMED)],
            index="ix_approvals_step",
        )

    def _of_lost_ids(self) -> None:
        """Steps by their action, the oldest first. That they are of an earlier epoch is left to the rule."""
        steps = rows.STEP.table.c
        equal = and_(steps.tool == bindparam("tool"), steps.digest_c == bindparam("digest_c"))
        free = steps.adopted_epoch < bindparam("epoch")
        doubt = words(steps.state, [StepState.IN_DOUBT])
        unheard = and_(words(steps.state, [StepState.FAILED]), words(steps.fail_status, [FailStatus.UNKNOWN]))
        unknown = and_(words(steps.effect, [Effect.IDEMPOTENT]), or_(words(steps.state, sorted(IN_FLIGHT)), unheard))
        self.steps_lost = self._by_action(
            said(UNFINISHED),
            equal,
            free,
            or_(doubt, unknown, suspected()),
            oldest=steps.epoch,
            index="ix_steps_unfinished",
        )
        blocks = and_(steps.epoch < bindparam("epoch"), steps.resource_c.is_not_distinct_from(bindparam("resource_c")))
        self.steps_in_doubt = self._by_action(
            said(UNFINISHED),
            doubt,
            steps.tool == bindparam("tool"),
            or_(steps.digest_c == bindparam("digest_c"), blocks),
            oldest=steps.epoch,
            index="ix_steps_unfinished",
        )
        self.steps_called = self._by_action(
            said(CALLED),
            equal,
            free,
            steps.replayed_epoch < bindparam("epoch"),
            oldest=steps.replayed_epoch,
            index="ix_steps_called",
        )

    def _by_action(self, *conditions: ColumnElement[bool], oldest: ColumnElement[int], index: str) -> Text:
        steps = rows.STEP.table
        query = select(*columns_of(rows.STEP)).where(
            steps.c.tenant == bindparam("tenant"), steps.c.run == bindparam("run"), *conditions
        )
        return self.text(at_most(by_index(query.order_by(oldest, steps.c.position), steps, index), "limit"))

    def _of_chain(self) -> None:
        self.tenants = self._by(rows.TENANT, order=[rows.TENANT.table.c.id])
        self.chain_key = self._by(rows.CHAIN_KEY, "tenant", "run", also=[is_kept(rows.CHAIN_KEY.table)])
        self.payload = self._by(rows.PAYLOAD, "tenant", "chain", "c")
        entries = (
            select(ENTRIES.c.seq, ENTRIES.c.data, ENTRIES.c.leaf_index)
            .where(ENTRIES.c.tenant == bindparam("tenant"), ENTRIES.c.chain == bindparam("chain"))
            .where(ENTRIES.c.seq > bindparam("after"))
            .order_by(ENTRIES.c.seq)
        )
        self.entries = self.text(at_most(entries, "limit"))

    def _of_administration(self) -> None:
        workloads, operators, payloads = rows.WORKLOAD.table, rows.OPERATOR.table, rows.PAYLOAD.table
        self.workload = self._by(rows.WORKLOAD, "id")
        serving = [workloads.c.removed_at.is_(None), workloads.c.audiences != literal_column("'[]'")]
        self.servers = self._by(rows.WORKLOAD, "tenant", also=serving)
        self.workloads = self._by(rows.WORKLOAD, "tenant", order=[workloads.c.enrolled_at, workloads.c.id])
        name = and_(
            payloads.c.tenant == operators.c.tenant,
            payloads.c.chain == literal_column("''"),
            payloads.c.c == operators.c.name_c,
        )
        keys = rows.CHAIN_KEY.table
        mine = and_(keys.c.tenant == operators.c.tenant, keys.c.run == literal_column("''"))
        named = select(*columns_of(rows.OPERATOR), *columns_of(rows.PAYLOAD), *columns_of(rows.CHAIN_KEY))
        living = operators.c.removed_at.is_(None)
        self.operator_by_token = self.text(
            named.select_from(operators.join(payloads, name).outerjoin(keys, mine)).where(
                operators.c.token_hash == bindparam("token_hash"), living
            )
        )
        self.operators = self.text(
            named.select_from(operators.outerjoin(payloads, name).outerjoin(keys, mine))
            .where(operators.c.tenant == bindparam("tenant"))
            .order_by(operators.c.created_at, operators.c.id)
        )
        released = rows.QUARANTINE.table.c.released_at
        self.quarantines = self._by(rows.QUARANTINE, "tenant", also=[or_(released.is_(None), released > self._now)])
        policies = rows.POLICY.table
        self.policy = self._by(rows.POLICY, "tenant", "revision")
        # The text is last and left out: a list of revisions should not read every policy that ever was.
        headings = select(*columns_of(rows.POLICY)[:-1]).where(policies.c.tenant == bindparam("tenant"))
        self.policies = self.text(headings.order_by(policies.c.counter.desc(), policies.c.revision.desc()))
        secrets = rows.SECRET.table
        kept = secrets.c.removed_at.is_(None)
        self.secret = self._by(rows.SECRET, "tenant", "name", also=[kept])
        self.secrets = self._by(rows.SECRET, "tenant", also=[kept], order=[secrets.c.name])
        self._of_sweeper()

    def _of_sweeper(self) -> None:
        runs, grants = rows.RUN.table, rows.GRANT.table
        # An open run has an epoch that is not over; the others that are not over yet (`resting.py`) are few.
        epochs = rows.EPOCH.table
        of_run = and_(runs.c.tenant == epochs.c.tenant, runs.c.id == epochs.c.run, runs.c.epoch == epochs.c.epoch)
        lapsed: Select[Any] = (
            select(runs.c.tenant, runs.c.id)
            .select_from(epochs.join(runs, of_run))
            .where(said(HELD), words(runs.c.state, [RunState.OPEN]), runs.c.lease_until <= bindparam("now"))
            .order_by(runs.c.lease_until)
        )
        lapsed = by_index(by_index(lapsed, epochs, "ix_run_epochs_held"), runs, "sqlite_autoindex_runs_1")
        self.lapsed = self.text(at_most(lapsed, "limit"))
        self._of_due()
        self._of_backlog()
        open_grant = select(grants.c.jti).where(grants.c.tenant == runs.c.tenant, grants.c.run == runs.c.id, said(OPEN))
        erasable = (
            select(runs.c.tenant, runs.c.id)
            .where(said(KEPT), runs.c.state == bindparam("state"), runs.c.ended_at <= bindparam("before"))
            .where(~exists(by_index(open_grant, grants, "ix_grants_pending").correlate(runs)))
            .order_by(runs.c.ended_at)
        )
        self.erasable = self.text(at_most(by_index(erasable, runs, "ix_runs_kept"), "limit"))
        of_issuer = (
            select(grants.c.jti)
            .where(grants.c.tenant == runs.c.tenant, grants.c.run == runs.c.id, said(OPEN))
            .where(grants.c.issuer == bindparam("issuer"))
        )
        has_open = exists(by_index(of_issuer, grants, "ix_grants_pending").correlate(runs))
        self.held = self.text(
            select(runs.c.id)
            .where(runs.c.tenant == bindparam("tenant"), said(UNENDED))
            .where(or_(runs.c.agent == bindparam("agent"), runs.c.workload == bindparam("workload"), has_open))
            .order_by(runs.c.id)
        )
        of_agent = select(runs.c.id).where(runs.c.tenant == bindparam("tenant"), runs.c.agent == bindparam("agent"))
        # By the order PostgreSQL takes the index, also where it plans for an agent that has most of the runs.
        of_agent = by_index(of_agent.order_by(runs.c.key), runs, "sqlite_autoindex_runs_2")
        self.had_runs = self.text(at_most(of_agent, "limit"))

    def _of_backlog(self) -> None:
        """What waits, counted over indexes of what waits."""
        runs, questions = rows.RUN.table, rows.APPROVAL.table
        many: ColumnElement[Any] = func.count()
        waiting = select(many, func.min(ENTRIES.c.ts)).select_from(ENTRIES).where(said(WAITING))
        self.entries_waiting = self.text(by_index(waiting, ENTRIES, "ix_entries_waiting"))
        parked = select(many).select_from(runs).where(said(UNENDED), words(runs.c.state, [RunState.PARKED]))
        self.runs_parked = self.text(by_index(parked, runs, "ix_runs_unended"))
        of_run = and_(runs.c.tenant == questions.c.tenant, runs.c.id == questions.c.run)
        asked = select(many).select_from(questions.join(runs, of_run))
        asked = asked.where(said(ASKED), questions.c.answer_by > bindparam("now"), said(UNENDED))
        self.questions_open = self.text(by_index(asked, questions, "ix_approvals_pending"))

    def _of_due(self) -> None:
        """Credentials outside that should be dead. What is due was due after 0, so a first page begins there."""
        grants = rows.GRANT.table.c
        due = and_(said(DUE), grants.due_at <= bindparam("now"))
        place = (grants.due_at, grants.tenant, grants.jti)
        after = [bindparam(f"after_{column.name}", type_=column.type) for column in place]
        # The first condition says nothing new; by it the index is entered where the page begins.
        beyond = and_(grants.due_at >= after[0], tuple_(*place) > tuple_(*after))
        page: Select[Any] = select(grants.tenant, grants.run, grants.jti, grants.issuer, grants.due_at)
        page = by_index(page.where(due, beyond).order_by(*place), rows.GRANT.table, "ix_grants_due")
        self.leases_due = self.text(at_most(page, "limit"))
        told: list[ColumnElement[Any]] = [func.count(), func.min(grants.due_at)]
        left = select(*told).select_from(rows.GRANT.table).where(due)
        self.leases_left = self.text(by_index(left, rows.GRANT.table, "ix_grants_due"))
