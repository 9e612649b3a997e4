"""Redeem a grant: a resource server spends its one use, atomically, before it acts."""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain import redeeming
from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.errors import UnknownGrant
from stepgrant_broker.domain.journal import By
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact


async def redeem(
    ports: Ports, caller: AgentCaller, jti: str, *, redemption_id: str, args_digest: str, proof_jti: str
) -> dict[str, Any]:
    """`{jti, act_before, …}`; the same server, id and proof get the same answer until then.

    Raises `UnknownGrant`, `DigestMismatch`, `AlreadyRedeemed`, `GrantRevoked`, `GrantExpired`, `Quarantined`.
    """

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        if loaded.view.run is None:
            raise UnknownGrant("no such grant for an audience of this workload")
        journal = journal_for(ports, loaded, By("resource_server", caller.subject))
        grant = redeeming.redeem(
            journal,
            loaded,
            caller,
            jti,
            redemption_id=redemption_id,
            args_digest=args_digest,
            proof_jti=proof_jti,
            limits=ports.limits,
        )
        answer = {
            "jti": jti,
            "act_before": grant.act_before,
            "redeemed_at": grant.redeemed_at,
            "now": loaded.now,
            "run": grant.run,
            "step": grant.step,
            "attempt": grant.attempt,
            "epoch": grant.epoch,
        }
        if not journal.entries:
            return Repeat(answer)
        return Change(answer, journal, guarded=True)

    return await transact(ports, Query(caller.tenant, grant=jti), work, proof=caller.proof)
