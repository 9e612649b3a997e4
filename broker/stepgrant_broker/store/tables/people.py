"""Administration: enrolments, people, kill switches, policy texts, static secrets."""

from __future__ import annotations

from sqlalchemy import UniqueConstraint

from stepgrant_broker.store.tables.base import Table, big, blob, maybe_big, pk


class WorkloadRow(Table, table=True):
    """An enrolment. The id is unique among all tenants: identities name themselves by it."""

    __tablename__ = "workloads"
    __table_args__ = (UniqueConstraint("id"),)
    tenant: str = pk()
    id: str = pk()
    name: str
    kind: str
    agents: str
    audiences: str
    jwk: str
    jkt: str
    enrolled_at: int = big()
    removed_at: int | None = maybe_big()


class OperatorRow(Table, table=True):
    """A person, found by the SHA-256 of the token."""

    __tablename__ = "operators"
    __table_args__ = (UniqueConstraint("token_hash"),)
    tenant: str = pk()
    id: str = pk()
    name_c: str
    roles: str
    groups: str
    token_hash: str
    created_at: int = big()
    removed_at: int | None = maybe_big()


class QuarantineRow(Table, table=True):
    """A kill switch."""

    __tablename__ = "quarantines"
    tenant: str = pk()
    kind: str = pk()
    name: str = pk()
    at: int = big()
    released_at: int | None = maybe_big()


class PolicyRow(Table, table=True):
    """An activated revision with its text."""

    __tablename__ = "policies"
    tenant: str = pk()
    revision: str = pk()
    counter: int = big()
    digest: str
    activated_at: int = big()
    text: bytes = blob()


class SecretRow(Table, table=True):
    """A static secret, wrapped."""

    __tablename__ = "secrets"
    tenant: str = pk()
    name: str = pk()
    hosts: str
    header: str
    key_id: str
    nonce: bytes = blob()
    ciphertext: bytes = blob()
    set_at: int = big()
    removed_at: int | None = maybe_big()
