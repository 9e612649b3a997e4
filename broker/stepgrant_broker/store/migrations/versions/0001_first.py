"""The first schema: tenants, runs and what belongs to them, chains, and administration.

Portable types only; natural keys, so that no BIGINT has to number itself; every constraint has its name. A revision
that was released is never changed: what it says stands here and is not taken from `tables/`, which moves on.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT, BIG, FLAG, YES_NO, BLOB = sa.String(), sa.BigInteger(), sa.SmallInteger(), sa.Boolean(), sa.LargeBinary()


def _columns(kind: Any, *names: str, null: bool = False) -> list[sa.Column[Any]]:  # noqa: ANN401 - a Core type
    return [sa.Column(name, kind, nullable=null, autoincrement=False) for name in names]


def _of_run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["tenant", "run"], ["runs.tenant", "runs.id"], name=f"fk_{table}_tenant_run_runs")


def _index(name: str, table: str, *columns: str, where: str | None = None) -> None:
    if where is None:
        op.create_index(name, table, list(columns))
    else:
        op.create_index(name, table, list(columns), sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    """Make all tables, runs before what refers to them."""
    _tenants()
    _runs()
    _run_epochs()
    _steps()
    _grants()
    _approvals()
    _entries()
    _payloads()
    _chain_keys()
    _answers()
    _proofs()
    _workloads()
    _operators()
    _quarantines()
    _policies()
    _secrets()


def _tenants() -> None:
    op.create_table(
        "tenants",
        *_columns(TEXT, "id"),
        *_columns(BIG, "seq"),
        *_columns(TEXT, "head"),
        *_columns(BIG, "last_ts", "guard"),
        *_columns(TEXT, "policy_revision", null=True),
        *_columns(BIG, "policy_counter"),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        *_columns(TEXT, "tenant", "id", "key", "agent"),
        *_columns(TEXT, "agent_version", null=True),
        *_columns(TEXT, "state"),
        *_columns(BIG, "epoch"),
        *_columns(TEXT, "jkt", "workload", "subject_c"),
        *_columns(BIG, "opened_at"),
        *_columns(TEXT, "labels"),
        *_columns(TEXT, "input_c", "principal_c", "principal_method", null=True),
        *_columns(BIG, "seq"),
        *_columns(TEXT, "head"),
        *_columns(BIG, "last_ts"),
        *_columns(BIG, "parked_at", null=True),
        *_columns(BIG, "parked_ms"),
        *_columns(TEXT, "park_reason", null=True),
        *_columns(BIG, "ended_at", null=True),
        *_columns(TEXT, "result_c", null=True),
        *_columns(BIG, "step_count"),
        *_columns(TEXT, "history"),
        *_columns(BIG, "lease_until"),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_runs"),
        sa.UniqueConstraint("tenant", "agent", "key", name="uq_runs_tenant_agent_key"),
    )
    _index("ix_runs_newest", "runs", "tenant", "opened_at", "id")
    _index("ix_runs_unended", "runs", "tenant", "id", where="ended_at IS NULL")


def _run_epochs() -> None:
    op.create_table(
        "run_epochs",
        *_columns(TEXT, "tenant", "run"),
        *_columns(BIG, "epoch"),
        *_columns(TEXT, "jkt", "workload", "subject_c"),
        *_columns(BIG, "at"),
        sa.PrimaryKeyConstraint("tenant", "run", "epoch", name="pk_run_epochs"),
        _of_run("run_epochs"),
        sqlite_with_rowid=False,
    )


def _steps() -> None:
    op.create_table(
        "steps",
        *_columns(TEXT, "tenant", "run", "key"),
        *_columns(YES_NO, "recorded"),
        *_columns(TEXT, "tool", "effect", "idempotency_key", "digest_c"),
        *_columns(TEXT, "resource_c", null=True),
        *_columns(TEXT, "id_source"),
        *_columns(TEXT, "parent", null=True),
        *_columns(BIG, "settle_ms"),
        *_columns(YES_NO, "retry_failed", "digest_only"),
        *_columns(TEXT, "state"),
        *_columns(BIG, "attempt", "epoch", "position", "revision"),
        *_columns(YES_NO, "started_ever"),
        *_columns(TEXT, "grant", "approval", "result_c", null=True),
        *_columns(YES_NO, "withheld"),
        *_columns(TEXT, "fail_status", "error_c", "doubt", null=True),
        *_columns(BIG, "doubt_since", null=True),
        *_columns(TEXT, "previous_outcome", null=True),
        *_columns(BIG, "replayed_epoch", "reconciles"),
        *_columns(TEXT, "decision", null=True),
        *_columns(FLAG, "done"),
        sa.PrimaryKeyConstraint("tenant", "run", "key", name="pk_steps"),
        _of_run("steps"),
        sqlite_with_rowid=False,
    )
    _index("ix_steps_position", "steps", "tenant", "run", "position")
    _index("ix_steps_unfinished", "steps", "tenant", "run", where="done = 0")


def _grants() -> None:
    op.create_table(
        "grants",
        *_columns(TEXT, "tenant", "jti", "run", "step"),
        *_columns(BIG, "attempt", "epoch"),
        *_columns(TEXT, "issuer", "revocation", "tool", "effect", "redeem", "jkt", "audience", "digest_c", "status"),
        *_columns(BIG, "issued_at", "exp"),
        *_columns(TEXT, "approval", null=True),
        *_columns(TEXT, "labels", "meters", "params"),
        *_columns(TEXT, "request", null=True),
        *_columns(BIG, "redeemed_at", null=True),
        *_columns(TEXT, "redemption_id", "redeemer", "proof_jti", null=True),
        *_columns(BIG, "act_before", "revoked_at", "confirmed_at", null=True),
        *_columns(TEXT, "cause", null=True),
        *_columns(YES_NO, "not_received"),
        *_columns(FLAG, "is_open"),
        *_columns(BIG, "live_until"),
        sa.PrimaryKeyConstraint("tenant", "jti", name="pk_grants"),
        _of_run("grants"),
        sqlite_with_rowid=False,
    )
    _index("ix_grants_live", "grants", "tenant", "run", "live_until", where="live_until > 0")
    _index("ix_grants_newest", "grants", "tenant", "issued_at", "jti")
    _index("ix_grants_open", "grants", "tenant", "run", where="is_open = 1")
    _index("ix_grants_step", "grants", "tenant", "run", "step")


def _approvals() -> None:
    op.create_table(
        "approvals",
        *_columns(TEXT, "tenant", "id", "run", "step", "binding_c", "tool", "effect", "issuer", "groups"),
        *_columns(BIG, "quorum", "requested_at", "answer_by", "valid_for_ms"),
        *_columns(TEXT, "revision", "reasons", "status"),
        *_columns(TEXT, "why_again", null=True),
        *_columns(TEXT, "answers"),
        *_columns(BIG, "settled_at", "resumed_at", null=True),
        *_columns(TEXT, "consumed_by", null=True),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_approvals"),
        _of_run("approvals"),
        sqlite_with_rowid=False,
    )
    _index("ix_approvals_newest", "approvals", "tenant", "requested_at", "id")
    _index("ix_approvals_step", "approvals", "tenant", "run", "step")


def _entries() -> None:
    op.create_table(
        "entries",
        *_columns(TEXT, "tenant", "chain"),
        *_columns(BIG, "seq"),
        *_columns(TEXT, "type"),
        *_columns(TEXT, "step", null=True),
        *_columns(BIG, "ts"),
        *_columns(BLOB, "hash", "data"),
        *_columns(BIG, "leaf_index", null=True),
        sa.PrimaryKeyConstraint("tenant", "chain", "seq", name="pk_entries"),
    )


def _payloads() -> None:
    op.create_table(
        "payloads",
        *_columns(TEXT, "tenant", "chain", "c", "field", "form"),
        *_columns(BLOB, "body"),
        *_columns(TEXT, "key_id", null=True),
        *_columns(BLOB, "nonce", null=True),
        *_columns(BIG, "expires_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "chain", "c", name="pk_payloads"),
    )
    _index("ix_payloads_expires", "payloads", "expires_at", where="expires_at IS NOT NULL")


def _chain_keys() -> None:
    op.create_table(
        "chain_keys",
        *_columns(TEXT, "tenant", "run", "key_id"),
        *_columns(BLOB, "nonce", "ciphertext"),
        sa.PrimaryKeyConstraint("tenant", "run", name="pk_chain_keys"),
        sqlite_with_rowid=False,
    )


def _answers() -> None:
    op.create_table(
        "answers",
        *_columns(TEXT, "tenant", "scope", "run", "body_c"),
        *_columns(BIG, "status"),
        *_columns(TEXT, "answer_c", null=True),
        *_columns(BIG, "expires_at"),
        sa.PrimaryKeyConstraint("tenant", "scope", name="pk_answers"),
        sqlite_with_rowid=False,
    )
    _index("ix_answers_expires", "answers", "expires_at")


def _proofs() -> None:
    op.create_table(
        "proofs",
        *_columns(TEXT, "id"),
        *_columns(BIG, "expires_at"),
        sa.PrimaryKeyConstraint("id", name="pk_proofs"),
        sqlite_with_rowid=False,
    )
    _index("ix_proofs_expires", "proofs", "expires_at")


def _workloads() -> None:
    op.create_table(
        "workloads",
        *_columns(TEXT, "tenant", "id", "name", "kind", "agents", "audiences", "jwk", "jkt"),
        *_columns(BIG, "enrolled_at"),
        *_columns(BIG, "removed_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_workloads"),
        sa.UniqueConstraint("id", name="uq_workloads_id"),
    )


def _operators() -> None:
    op.create_table(
        "operators",
        *_columns(TEXT, "tenant", "id", "name_c", "roles", "groups", "token_hash"),
        *_columns(BIG, "created_at"),
        *_columns(BIG, "removed_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_operators"),
        sa.UniqueConstraint("token_hash", name="uq_operators_token_hash"),
    )


def _quarantines() -> None:
    op.create_table(
        "quarantines",
        *_columns(TEXT, "tenant", "kind", "name"),
        *_columns(BIG, "at"),
        *_columns(BIG, "released_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "kind", "name", name="pk_quarantines"),
    )


def _policies() -> None:
    op.create_table(
        "policies",
        *_columns(TEXT, "tenant", "revision"),
        *_columns(BIG, "counter"),
        *_columns(TEXT, "digest"),
        *_columns(BIG, "activated_at"),
        *_columns(BLOB, "text"),
        sa.PrimaryKeyConstraint("tenant", "revision", name="pk_policies"),
    )


def _secrets() -> None:
    op.create_table(
        "secrets",
        *_columns(TEXT, "tenant", "name", "hosts", "header", "key_id"),
        *_columns(BLOB, "nonce", "ciphertext"),
        *_columns(BIG, "set_at"),
        *_columns(BIG, "removed_at", null=True),
        sa.PrimaryKeyConstraint("tenant", "name", name="pk_secrets"),
    )
