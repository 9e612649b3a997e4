"""A grant of another tenant, for a resource server of ours: same broker, same keys, and policy says our audience."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fakes.hand import REGO, allow
from fakes.served import Broker, Caller, enrolled
from fakes.world import AUDIENCE
from stepgrant import canonical, errors
from stepgrant.verify import Action, GrantVerifier, Presented, VerifiedGrant
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.usecases.activate_policy import activate_policy

ACTION = Action("refund.create", "order/1", {"amount": 5})


async def stranger(broker: Broker) -> Caller:
    """An agent of the tenant `globex`, for which policy says below what suits globex."""
    ours = next(tenant for tenant in await broker.ports.reads.tenants() if tenant.id == "acme")
    files = from_files({"stepgrant/main.rego": REGO}).files
    await activate_policy(broker.ports, "globex", None, revision=str(ours.policy_revision), text=files)
    key = await enrolled(broker.ports, "globex", "refunds", agents=("agent",))
    return await Caller(broker, key).exchange()


async def granted(agent: Caller, **grant: Any) -> Mapping[str, Any]:  # noqa: ANN401 - the contract's JSON
    """What `begin` gives for `ACTION`."""
    run = (await agent.open())["run"]
    answer = await agent.begin(run, decision=allow(**grant), effect=grant.get("effect", "once"))
    assert answer.json()["outcome"] == "run", answer.text
    return dict(answer.json())


async def verified(broker: Broker, agent: Caller, grant: Mapping[str, Any], tenant: str) -> VerifiedGrant:
    """The grant, at a server of this tenant that asks nobody. Raises `VerificationError`."""
    keys: dict[str, canonical.JsonValue] = (await broker.client.get("/.well-known/jwks.json")).json()
    verifier = GrantVerifier(
        issuer=broker.ports.limits.issuer_url,
        audience=AUDIENCE,
        tenant=tenant,
        keys=keys,
        clock=lambda: broker.now_s,
    )
    token = grant["credential"]["fields"]["token"]
    proof = agent.dpop.proof("POST", AUDIENCE, token=token, now=broker.now_s)
    return verifier.verify_sync(Presented("POST", AUDIENCE, token, proof), ACTION)


async def test_a_read_grant_of_another_tenant_passes_no_server_of_ours(broker: Broker) -> None:
    ours, theirs = await broker.agent(), await stranger(broker)
    for agent, home, away in ((ours, "acme", "globex"), (theirs, "globex", "acme")):
        grant = await granted(agent, effect="read", redeem="optional")
        with pytest.raises(errors.InvalidToken) as caught:
            await verified(broker, agent, grant, away)
        assert (caught.value.code, caught.value.reason) == ("invalid_token", "wrong_tenant")
        assert (await verified(broker, agent, grant, home)).claims["tenant"] == home


async def test_a_server_of_ours_redeems_no_grant_of_another_tenant(broker: Broker) -> None:
    grant = await granted(await stranger(broker))
    digest = canonical.action_digest(ACTION.tool, ACTION.resource, ACTION.args)
    body = {"redemption_id": "rdm_1", "args_digest": digest, "proof_jti": "proof-1"}
    path = f"/v1/grants/{grant['grant']['jti']}/redeem"
    refused = await (await broker.server()).call("POST", path, body)

    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_grant")
    # Nothing was spent: its own tenant's server can still do so.
    own = await enrolled(broker.ports, "globex", "shop", audiences=(AUDIENCE,))
    assert (await (await Caller(broker, own).exchange()).call("POST", path, body)).status_code == 200
