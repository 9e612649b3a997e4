"""Chains: the tenant's own head and guard, entries, payloads, keys; and what makes a repeated call answer the same.

Proofs and answers have no index over their end: whoever forgets them walks over the keys (`statements.Walk`).
"""

from __future__ import annotations

from typing import Final

from stepgrant_broker.store.tables.base import (
    ABOUT_KEYS,
    INTEGRATED,
    ONE_TREE,
    PASSING,
    WAITING,
    Table,
    big,
    blob,
    maybe_big,
    pk,
    where,
)


class TenantRow(Table, table=True):
    """A tenant's own chain, and the guard that every grant's commit compares."""

    __tablename__ = "tenants"
    id: str = pk()
    seq: int = big()
    head: str
    last_ts: int = big()
    guard: int = big()
    policy_revision: str | None = None
    policy_counter: int = big()


class EntryRow(Table, table=True):
    """An entry: `data` are the bytes that are hashed. `chain` is a run's id, or empty for the tenant's own chain.

    `leaf_index` stands outside the hash; the sequencer gives it later.
    """

    __tablename__ = "entries"
    __table_args__ = (
        where("ix_entries_waiting", WAITING, "ts", "tenant", "chain", "seq"),
        where("ix_entries_leaf", INTEGRATED, "leaf_index", unique=True),
        where("ix_entries_keys", ABOUT_KEYS, "tenant", "chain", "seq"),
    )
    tenant: str = pk()
    chain: str = pk()
    seq: int = big(primary_key=True, sa_column_kwargs={"autoincrement": False})
    type: str
    step: str | None = None
    ts: int = big()
    hash: bytes = blob()
    data: bytes = blob()
    leaf_index: int | None = maybe_big()


class PayloadRow(Table, table=True):
    """A value behind a commitment. `key_id` and `nonce` are NULL while it rests in clear.

    `expires_at` is NULL for what an entry commits to, and a time for the body of a stored answer.
    """

    __tablename__ = "payloads"
    __table_args__ = (where("ix_payloads_expires", PASSING, "expires_at"),)
    tenant: str = pk()
    chain: str = pk()
    c: str = pk()
    field: str
    form: str
    body: bytes = blob()
    key_id: str | None = None
    nonce: bytes | None = blob(default=None)
    expires_at: int | None = maybe_big()


ERASED: Final = {"key_id": "erased------------", "nonce": bytes(12), "ciphertext": bytes(48)}
"""As long as the key that it is written over: a `LocalWrap`'s key id, nonce, and 32 wrapped bytes."""


class ChainKeyRow(Table, table=True):
    """The wrapped key of a run's chain, or (`run` empty) of the tenant's own.

    Rows are appended, and overwritten in their place by others of the same length, never deleted: then SQLite never
    moves them between pages, which would leave copies in free space. A key that was destroyed is the row `ERASED`.
    """

    __tablename__ = "chain_keys"
    tenant: str = pk()
    run: str = pk()
    key_id: str
    nonce: bytes = blob()
    ciphertext: bytes = blob()


class AnswerRow(Table, table=True):
    """What an Idempotency-Key was answered."""

    __tablename__ = "answers"
    __table_args__ = ONE_TREE
    tenant: str = pk()
    scope: str = pk()
    run: str
    body_c: str
    status: int = big()
    answer_c: str | None = None
    expires_at: int = big()


class ProofRow(Table, table=True):
    """A DPoP proof that was used. The id is a SHA-256 over key and `jti`, so it needs no tenant."""

    __tablename__ = "proofs"
    __table_args__ = ONE_TREE
    id: str = pk()
    expires_at: int = big()
