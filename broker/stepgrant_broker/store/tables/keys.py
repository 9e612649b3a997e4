"""The registry of signing keys. Like the log it belongs to no tenant: what stands here is public."""

from __future__ import annotations

from stepgrant_broker.store.tables.base import Table, big, maybe_big, pk


class SigningKeyRow(Table, table=True):
    """A key that this installation signs with, or signed with."""

    __tablename__ = "signing_keys"
    purpose: str = pk()
    kid: str = pk()
    number: int = big()
    jwk: str
    since: int = big()
    signs_from: int = big()
    until: int | None = maybe_big()
    revoked_at: int | None = maybe_big()
    revoked_size: int | None = maybe_big()
