"""What is written of a credential outside: its lease, without which it is not released, and its confirmed death.

Handle and lease stand in entries as commitments only; the values behind them are erased with the death.
"""

from __future__ import annotations

from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import GrantRevoked, IssuerRefused
from stepgrant_broker.domain.grants import needs_confirmation
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import Grant, GrantStatus


def record_lease(journal: Journal, jti: str, *, lease: str | None, expires_at: int) -> Grant:
    """Write the lease of a recorded intent; the grant ends with whichever ends first (ms).

    Raises `GrantRevoked` if the intent was taken back meanwhile, `IssuerRefused` if its time is over already.
    """
    grant = journal.view.grants.get(jti)
    if grant is None or grant.status is not GrantStatus.INTENT:
        cause = None if grant is None else grant.cause
        raise GrantRevoked("the grant was taken back while its credential was being made", cause=cause)
    exp = min(grant.exp, expires_at)
    if exp <= journal.now:
        raise IssuerRefused("the credential came when its time was over already")
    named = {"jti": grant.jti, "issuer": grant.issuer, "exp": exp, "handle_c": grant.handle_c}
    body = {"lease_c": journal.commit.maybe("grant.lease", lease)}
    journal.add_of(grant, EntryType.LEASE_RECORDED, grant=named, body=body)
    return journal.view.grants[jti]


def record_death(journal: Journal, jti: str) -> tuple[str, ...] | None:
    """Write that the issuer confirmed the death; the commitments whose values go with it. `None`: it is written."""
    grant = journal.view.grants.get(jti)
    if grant is None or not needs_confirmation(grant):
        return None
    body = {"unused": False, "confirmed": True}
    journal.add_of(grant, EntryType.GRANT_REVOKED, cause=grant.cause, body=body)
    return tuple(c for c in (grant.handle_c, grant.lease_c) if c is not None)
