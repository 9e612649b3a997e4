"""What is written of a credential outside: its lease, without which it is not released, and its confirmed death.

Rules:
* Handle and lease stand in entries as commitments only; the values behind them are erased with the death.
* The issuer confirms a death. Where it never can (it was removed, renamed, or has lost its memory), an operator may,
  once the longest life is over: the entry is the same, by that person, with the cause `declared_dead`.
"""

from __future__ import annotations

from typing import Final

from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import GrantRevoked, InvalidRequest, IssuerRefused, PriorCredentialLive
from stepgrant_broker.domain.grants import is_open, needs_confirmation, over_at
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.releasing import revoke
from stepgrant_broker.domain.state import Grant, GrantStatus

DECLARED: Final = "declared_dead"


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


def declare_dead(journal: Journal, jti: str, leeway_ms: int) -> tuple[str, ...]:
    """Write that the person of this journal vouches for the death; as `record_death`, and nothing if it is written.

    Raises `InvalidRequest` for a grant whose death nobody has to confirm, `PriorCredentialLive` before its longest life
    is over.
    """
    grant = journal.view.grants[jti]
    if grant.revocation is not Revocation.CONFIRMED:
        raise InvalidRequest(f"no confirmation is waited for: revocation of its issuer is {grant.revocation.value}")
    over = over_at(grant, leeway_ms)
    if is_open(grant) and journal.now < over:
        raise PriorCredentialLive(
            "its longest life is not over; nobody can know that", retry_after_ms=over - journal.now
        )
    revoke(journal, grant, DECLARED)
    grant = journal.view.grants[jti]
    if not needs_confirmation(grant):
        return ()
    journal.add_of(grant, EntryType.GRANT_REVOKED, cause=DECLARED, body={"unused": False, "confirmed": True})
    return tuple(c for c in (grant.handle_c, grant.lease_c) if c is not None)
