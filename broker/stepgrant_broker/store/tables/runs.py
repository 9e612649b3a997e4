"""Runs and what belongs to them: epochs, steps, grants, approvals. Columns are the fields of `domain/state.py`.

Indexes are for one run with 100,000 steps: whatever `begin` reads of it is found by key or through a partial index, so
its cost does not grow with the run. Each index costs every commit a page, so there is none that only a list needs:
identifiers begin with their time, and the few steps of a run are sorted.

Workers and the sweeper look for runs again and again, among all that are parked. What they are found by changes when a
run is opened, resumed or parked, never while a holder works: a run that is held stands in none of the indexes over
parked runs, neither before a `begin` nor after it, and no `begin` touches its epoch's row. SQLite writes an index anew
when a column of it, or of its condition, is named by an UPDATE, changed or not; so there is none over the open runs,
and none has `lease_until`. `store/resting.py` says what `over` and `rests_*` tell.
"""

from __future__ import annotations

from sqlalchemy import Index, UniqueConstraint, text

from stepgrant_broker.store.tables.base import (
    ASKED,
    AWAKE,
    CALLED,
    DUE,
    HELD,
    KEPT,
    ONE_TREE,
    PENDING,
    RESTING,
    UNENDED,
    UNFINISHED,
    Table,
    big,
    flag,
    maybe_big,
    of_run,
    pk,
    where,
)


class RunRow(Table, table=True):
    """A run with its lease, the one thing that entries do not carry. `seq` is what commits compare.

    `rests_seq`, `rests_until`: as long as its chain ends there, nobody can resume the parked run before that time.
    """

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("tenant", "agent", "key"),
        where("ix_runs_unended", UNENDED, "tenant", "id"),
        where("ix_runs_kept", KEPT, "state", "ended_at"),
        where("ix_runs_awake", AWAKE, "tenant", "agent", "id"),
        where("ix_runs_resting", RESTING, "tenant", "agent", "rests_until"),
    )
    tenant: str = pk()
    id: str = pk()
    key: str
    agent: str
    agent_version: str | None = None
    state: str
    epoch: int = big()
    jkt: str
    workload: str
    subject_c: str
    opened_at: int = big()
    labels: str
    input_c: str | None = None
    principal_c: str | None = None
    principal_method: str | None = None
    seq: int = big()
    head: str
    last_ts: int = big()
    parked_at: int | None = maybe_big()
    parked_ms: int = big()
    park_reason: str | None = None
    ended_at: int | None = maybe_big()
    result_c: str | None = None
    step_count: int = big()
    history: str
    lease_until: int = big()
    tries: int = big(default=0, sa_column_kwargs={"server_default": text("0")})
    park_detail_c: str | None = None
    erased_at: int | None = maybe_big()
    rests_seq: int = big(sa_column_kwargs={"server_default": text("0")})
    rests_until: int = big(sa_column_kwargs={"server_default": text("0")})


class EpochRow(Table, table=True):
    """One holding of a run. `over` is 1 once somebody saw that the run is not held under it any more."""

    __tablename__ = "run_epochs"
    __table_args__ = (of_run(), where("ix_run_epochs_held", HELD, "tenant", "run"), ONE_TREE)
    tenant: str = pk()
    run: str = pk()
    epoch: int = big(primary_key=True, sa_column_kwargs={"autoincrement": False})
    jkt: str
    workload: str
    subject_c: str
    at: int = big()
    over: int = flag(sa_column_kwargs={"server_default": text("0")})


class StepRow(Table, table=True):
    """A step with its newest attempt. `done` is 1 once it has a result, or is only a name of another step.

    `ix_steps_called` finds the completed step that a call under a new id equals. Only the completion of a step that has
    a call id writes to it: a page more for that commit, nothing for others and nothing for any `begin`.
    """

    __tablename__ = "steps"
    __table_args__ = (
        of_run(),
        where("ix_steps_unfinished", UNFINISHED, "tenant", "run"),
        where("ix_steps_called", CALLED, "tenant", "run", "digest_c", "replayed_epoch", "position"),
        ONE_TREE,
    )
    tenant: str = pk()
    run: str = pk()
    key: str = pk()
    recorded: bool
    tool: str
    effect: str
    idempotency_key: str
    digest_c: str
    resource_c: str | None = None
    id_source: str
    parent: str | None = None
    settle_ms: int = big()
    retry_failed: bool
    digest_only: bool
    state: str
    attempt: int = big()
    epoch: int = big()
    position: int = big()
    revision: int = big()
    started_ever: bool
    grant: str | None = None
    approval: str | None = None
    result_c: str | None = None
    withheld: bool
    fail_status: str | None = None
    error_c: str | None = None
    doubt: str | None = None
    doubt_since: int | None = maybe_big()
    previous_outcome: str | None = None
    replayed_epoch: int = big()
    reconciles: int = big()
    decision: str | None = None
    done: int = flag()
    same_as: str | None = None
    adopted_epoch: int = big(default=0, sa_column_kwargs={"server_default": text("0")})
    duplicate_of: str | None = None
    duplicate: str | None = None


class GrantRow(Table, table=True):
    """A grant. `is_open`: the broker has still to act on it. `live_until`: no effect can come from it after that.

    `live_until` is an upper bound with the largest leeway (`rows.LEEWAY_MAX_MS`); 0 for `read`.
    `due_at`: from when on the sweeper has to act for a credential outside; 0: never.
    """

    __tablename__ = "grants"
    __table_args__ = (
        of_run(),
        Index("ix_grants_step", "tenant", "run", "step"),
        where("ix_grants_pending", PENDING, "tenant", "run", "is_open", "live_until"),
        where("ix_grants_due", DUE, "due_at"),
        ONE_TREE,
    )
    tenant: str = pk()
    jti: str = pk()
    run: str
    step: str
    attempt: int = big()
    epoch: int = big()
    issuer: str
    revocation: str
    tool: str
    effect: str
    redeem: str
    jkt: str
    audience: str
    digest_c: str
    status: str
    issued_at: int = big()
    exp: int = big()
    approval: str | None = None
    labels: str
    meters: str
    params: str
    request: str | None = None
    redeemed_at: int | None = maybe_big()
    redemption_id: str | None = None
    redeemer: str | None = None
    proof_jti: str | None = None
    act_before: int | None = maybe_big()
    revoked_at: int | None = maybe_big()
    confirmed_at: int | None = maybe_big()
    cause: str | None = None
    not_received: bool
    is_open: int = flag()
    live_until: int = big()
    handle_c: str | None = None
    lease_c: str | None = None
    due_at: int = big(default=0, sa_column_kwargs={"server_default": text("0")})


class ApprovalRow(Table, table=True):
    """A question to people, with their answers.

    `ix_approvals_pending` lists those that are open, which pages of people ask for again and again. A question writes
    to it when it is asked and when it is settled; a `begin` that spends an answer does not touch it.
    """

    __tablename__ = "approvals"
    __table_args__ = (
        of_run(),
        Index("ix_approvals_step", "tenant", "run", "step"),
        where("ix_approvals_pending", ASKED, "tenant", "id"),
        ONE_TREE,
    )
    tenant: str = pk()
    id: str = pk()
    run: str
    step: str
    binding_c: str
    tool: str
    effect: str
    issuer: str
    groups: str
    quorum: int = big()
    requested_at: int = big()
    answer_by: int = big()
    valid_for_ms: int = big()
    revision: str
    reasons: str
    status: str
    why_again: str | None = None
    answers: str
    settled_at: int | None = maybe_big()
    resumed_at: int | None = maybe_big()
    consumed_by: str | None = None
