"""Redeeming a grant: the one moment that makes use provable and death certain (`protocol.md` §3).

Rules:
* Only a workload enrolled for the grant's audience, only with the digest of the very call, only while the grant, its
  holder's epoch and lease, and the kill switch allow it.
* The answer is repeated to the same server, redemption id and proof until `act_before`, while the grant holds; anyone
  else is too late.
"""

from __future__ import annotations

from typing import Final

from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import (
    AlreadyRedeemed,
    DigestMismatch,
    GrantExpired,
    GrantRevoked,
    InvalidRequest,
    UnknownGrant,
)
from stepgrant_broker.domain.holding import refuse_quarantined
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import Grant, GrantStatus, RunState
from stepgrant_broker.domain.writes import Loaded

ID_MAX: Final = 200


def redeem(
    journal: Journal,
    loaded: Loaded,
    caller: AgentCaller,
    jti: str,
    *,
    redemption_id: str,
    args_digest: str,
    proof_jti: str,
    limits: Limits,
) -> Grant:
    """Spend the grant's one use.

    Raises `UnknownGrant`, `DigestMismatch`, `AlreadyRedeemed`, `GrantRevoked`, `GrantExpired`, `Quarantined`.
    """
    grant = journal.view.grants.get(jti)
    if grant is None or grant.audience not in caller.workload.audiences:
        # A server of another audience learns nothing, not even that the grant exists.
        raise UnknownGrant("no such grant for an audience of this workload")
    for name, value in (("redemption_id", redemption_id), ("proof_jti", proof_jti)):
        if not 1 <= len(value) <= ID_MAX:
            raise InvalidRequest(f"{name} is 1 to {ID_MAX} characters", field=name)
    if grant.digest_c != journal.commit.peek("action.digest", args_digest):
        raise DigestMismatch("this is not the action that was granted", field="args_digest")
    if grant.redeemed_at is not None:
        _refuse_second(journal, grant, caller, redemption_id, proof_jti)
    # Also before an answer is repeated: who asks again has not acted yet, and must not once the grant is taken back.
    _refuse_dead(journal, loaded, grant, caller)
    if grant.redeemed_at is not None:
        return grant
    journal.add_of(
        grant,
        EntryType.GRANT_REDEEMED,
        body={
            "server": caller.workload.id,
            "redemption_id": redemption_id,
            "proof_jti": proof_jti,
            "act_before": min(journal.now + limits.redeem_window_ms, grant.exp),
        },
    )
    return journal.view.grants[jti]


def _refuse_second(journal: Journal, grant: Grant, caller: AgentCaller, redemption_id: str, proof_jti: str) -> None:
    same = (grant.redeemer, grant.redemption_id, grant.proof_jti) == (caller.workload.id, redemption_id, proof_jti)
    if not same or grant.act_before is None or journal.now >= grant.act_before:
        raise AlreadyRedeemed("this grant was redeemed before; its one use is spent")


def _refuse_dead(journal: Journal, loaded: Loaded, grant: Grant, caller: AgentCaller) -> None:
    run = journal.run
    if grant.status is not GrantStatus.ISSUED:
        raise GrantRevoked(f"the grant is {grant.status.value}")
    if run.state is not RunState.OPEN or grant.epoch != run.epoch or loaded.lease_until <= journal.now:
        raise GrantRevoked("the holder of this grant is fenced")
    refuse_quarantined(loaded.quarantines, journal.now, workload=caller.workload)
    refuse_quarantined(loaded.quarantines, journal.now, agent=run.agent, workload=run.workload, issuer=grant.issuer)
    if grant.exp <= journal.now:
        raise GrantExpired("the grant has expired")
