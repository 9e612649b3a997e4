"""Grants: redeemed by resource servers, listed, revoked and declared dead by people."""

from __future__ import annotations

from typing import Any, Final

from stepgrant import _wire
from stepgrant_broker.api import parsing, shapes, shapes_people
from stepgrant_broker.api.context import Api
from stepgrant_broker.api.paging import GrantQuery, page_of
from stepgrant_broker.api.routing import Call, Endpoint, agents, people
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.usecases import answers
from stepgrant_broker.usecases.declare_dead import declare_dead
from stepgrant_broker.usecases.redeem import redeem
from stepgrant_broker.usecases.revoke import revoke_grant

Answer = dict[str, Any]


async def redeem_(api: Api, call: Call[AgentCaller, _wire.Redeem]) -> Answer:
    """Spend the grant's one use, by a resource server, before it acts."""
    taken = call.taken
    if not parsing.DIGEST.fullmatch(taken.args_digest):
        raise InvalidRequest("args_digest is sha-256: and 43 characters of base64url", field="args_digest")
    return await redeem(
        api.ports,
        call.caller,
        call.segment("jti"),
        redemption_id=taken.redemption_id,
        args_digest=taken.args_digest,
        proof_jti=taken.proof_jti,
    )


async def list_grants(api: Api, call: Call[PersonCaller, GrantQuery]) -> Answer:
    """Grants of the tenant, newest first."""
    taken = call.taken
    rows = await api.ports.reads.grants(call.caller.tenant, page_of(taken), run=taken.run, live=taken.live)
    return {"grants": [answers.grant(row, None) for row in rows.rows], "next": rows.next}


async def revoke_(api: Api, call: Call[PersonCaller, _wire.RevokeGrant]) -> Answer:
    """Revoke one grant by hand."""
    return await revoke_grant(api.ports, call.caller, call.segment("jti"), call.request())


async def declare_dead_(api: Api, call: Call[PersonCaller, _wire.DeclareDead]) -> Answer:
    """Vouch for the death of a credential whose issuer can never confirm it, once its longest life is over."""
    return await declare_dead(api.ports, call.caller, call.segment("jti"), call.request())


HOT: Final[tuple[Endpoint, ...]] = (
    agents("POST", "/v1/grants/{jti}/redeem", redeem_, _wire.Redeem, shapes.Redeemed, keyed=False),
)  # fmt: skip
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    people("GET", "/v1/grants", list_grants, GrantQuery, shapes_people.Grants),
    people("POST", "/v1/grants/{jti}/revoke", revoke_, _wire.RevokeGrant, shapes.Grant),
    people("POST", "/v1/grants/{jti}/declare-dead", declare_dead_, _wire.DeclareDead, shapes.Grant),
)
