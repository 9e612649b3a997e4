"""For every code of `protocol.md` §7 a way to provoke it over HTTP, on the real application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from fakes.hand import ask, deny
from fakes.served import Broker, Caller, step_body
from stepgrant_broker.domain.settings import Limits

Provoke = Callable[[Broker], Awaitable[httpx.Response]]
PROVOKED: dict[str, Provoke] = {}
LIMITS: dict[str, Limits] = {}


def provokes(code: str, limits: Limits | None = None) -> Callable[[Provoke], Provoke]:
    def note(provoke: Provoke) -> Provoke:
        PROVOKED[code] = provoke
        LIMITS[code] = limits or Limits()
        return provoke

    return note


async def held(broker: Broker, **body: Any) -> tuple[Caller, str]:  # noqa: ANN401 - members
    agent = await broker.agent()
    return agent, str((await agent.open(**body))["run"])


async def granted(broker: Broker, **body: Any) -> tuple[Caller, str, dict[str, Any]]:  # noqa: ANN401 - members
    agent, run = await held(broker)
    response = await agent.begin(run, **body)
    assert response.json()["outcome"] == "run"
    return agent, run, dict(response.json()["grant"])


def redemption(**more: str) -> dict[str, str]:
    digest = "sha-256:soQCLpfkAAX3kN_DyIUui8d54CqAmJ4EcrhrsxEIjdw"
    return {"redemption_id": "r1", "args_digest": digest, "proof_jti": "p1", **more}


# ------------------------------------------------------------------------------------------------------ 400, 413 - 422


@provokes("invalid_request")
async def _no_json(broker: Broker) -> httpx.Response:
    agent = await broker.agent()
    return await agent.call("POST", "/v1/runs", b'{"agent": "a", "agent": "b"}')


@provokes("digest_mismatch")
async def _other_digest(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    body = step_body()
    body["action"]["args_digest"] = "sha-256:" + "A" * 43
    return await agent.call("POST", f"/v1/runs/{run}/steps/s1/begin", body)


@provokes("too_large")
async def _too_large(broker: Broker) -> httpx.Response:
    agent = await broker.agent()
    return await agent.call("POST", "/v1/runs", {"agent": "agent", "input": "x" * 1_100_000})


@provokes("unsupported_media_type")
async def _other_type(broker: Broker) -> httpx.Response:
    agent = await broker.agent()
    return await agent.call("POST", "/v1/runs", {"agent": "agent"}, **{"content-type": "text/plain"})


@provokes("schema_violation")
async def _other_shape(broker: Broker) -> httpx.Response:
    agent = await broker.agent()
    return await agent.call("POST", "/v1/runs", {"agent": "agent", "labels": {"team": 7}})


# ----------------------------------------------------------------------------------------------------------- 401, 403


@provokes("invalid_token")
async def _no_token(broker: Broker) -> httpx.Response:
    return await broker.send("POST", "/v1/runs", {"agent": "agent"}, headers={})


@provokes("invalid_dpop_proof")
async def _no_proof(broker: Broker) -> httpx.Response:
    agent = await broker.agent()
    headers = {"authorization": f"DPoP {agent.token}"}
    return await broker.send("POST", "/v1/runs", {"agent": "agent"}, headers=headers)


@provokes("use_dpop_nonce")
async def _no_nonce(broker: Broker) -> httpx.Response:
    agent = await broker.agent()
    agent.nonce = None
    return await agent.call("POST", "/v1/runs", {"agent": "agent"})


@provokes("policy_denied")
async def _denied_start(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    await agent.call("POST", f"/v1/runs/{run}/steps/s1/prepare", step_body())
    return await agent.call("POST", f"/v1/runs/{run}/steps/s1/start", step_body(deny("too_much")))


@provokes("approval_required")
async def _asked_start(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    await agent.call("POST", f"/v1/runs/{run}/steps/s1/prepare", step_body())
    return await agent.call("POST", f"/v1/runs/{run}/steps/s1/start", step_body(ask()))


@provokes("quarantined")
async def _quarantined(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    await broker.person("POST", "/v1/quarantine", {"agent": "agent"})
    return await agent.begin(run)


@provokes("forbidden")
async def _workload_among_people(broker: Broker) -> httpx.Response:
    agent = await broker.agent()
    return await agent.call("GET", "/v1/approvals")


# ---------------------------------------------------------------------------------------------------------------- 404


@provokes("unknown_run")
async def _unknown_run(broker: Broker) -> httpx.Response:
    agent = await broker.agent()
    return await agent.begin("run_of_somebody_else")


@provokes("unknown_step")
async def _unknown_step(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    return await agent.call("POST", f"/v1/runs/{run}/steps/s9/complete", {"epoch": 1, "attempt": 1})


@provokes("unknown_grant")
async def _unknown_grant(broker: Broker) -> httpx.Response:
    server = await broker.server()
    return await server.call("POST", "/v1/grants/grn_nowhere/redeem", redemption())


@provokes("unknown_approval")
async def _unknown_approval(broker: Broker) -> httpx.Response:
    return await broker.person("GET", "/v1/approvals/apr_nowhere")


@provokes("not_found")
async def _nothing_there(broker: Broker) -> httpx.Response:
    return await broker.person("DELETE", "/v1/secrets/nowhere")


@provokes("method_not_allowed")
async def _other_method(broker: Broker) -> httpx.Response:
    return await broker.client.delete("/v1/runs")


# ---------------------------------------------------------------------------------------------------------------- 409


@provokes("stale_epoch")
async def _zombie(broker: Broker) -> httpx.Response:
    zombie, run = await held(broker)
    broker.hand.clock.tick(31_000)
    await (await broker.agent()).open()
    return await zombie.begin(run)


@provokes("lease_held")
async def _held_by_another(broker: Broker) -> httpx.Response:
    await held(broker)
    other = await broker.agent()
    return await other.call("POST", "/v1/runs", {"agent": "agent", "run_key": "job"})


@provokes("set_aside")
async def _given_up(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    await agent.call("POST", f"/v1/runs/{run}/park", {"epoch": 1, "reason": "set_aside", "detail": "no use"})
    return await (await broker.agent()).call("POST", "/v1/runs", {"agent": "agent", "run_key": "job"})


@provokes("wrong_holder")
async def _another_key(broker: Broker) -> httpx.Response:
    _, run = await held(broker)
    return await (await broker.agent()).begin(run)


@provokes("already_redeemed")
async def _spent(broker: Broker) -> httpx.Response:
    _, _, grant = await granted(broker)
    server = await broker.server()
    assert (await server.call("POST", f"/v1/grants/{grant['jti']}/redeem", redemption())).status_code == 200
    return await server.call("POST", f"/v1/grants/{grant['jti']}/redeem", redemption(redemption_id="r2"))


@provokes("duplicate_request")
async def _other_body(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    path = f"/v1/runs/{run}/steps/plan/record"
    await agent.call("POST", path, {"epoch": 1, "name": "plan", "result": 1}, key="one-key")
    return await agent.call("POST", path, {"epoch": 1, "name": "plan", "result": 2}, key="one-key")


@provokes("step_drift")
async def _drift(broker: Broker) -> httpx.Response:
    agent, run, _ = await granted(broker)
    body = step_body()
    body["action"]["args"] = {"amount": 6}
    return await agent.call("POST", f"/v1/runs/{run}/steps/s1/begin", body)


@provokes("step_in_doubt")
async def _doubt(broker: Broker) -> httpx.Response:
    agent, run, grant = await granted(broker)
    server = await broker.server()
    await server.call("POST", f"/v1/grants/{grant['jti']}/redeem", redemption())
    failed = {"epoch": 1, "attempt": 1, "outcome": "unknown"}
    await agent.call("POST", f"/v1/runs/{run}/steps/s1/fail", failed)
    return await agent.call("POST", f"/v1/runs/{run}/complete", {"epoch": 1})


@provokes("run_ended")
async def _ended(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    await agent.call("POST", f"/v1/runs/{run}/complete", {"epoch": 1})
    return await agent.begin(run)


@provokes("prior_credential_live", Limits(lease_ms=1_000))
async def _still_alive(broker: Broker) -> httpx.Response:
    _, run, grant = await granted(broker)
    server = await broker.server()
    await server.call("POST", f"/v1/grants/{grant['jti']}/redeem", redemption())
    broker.hand.clock.tick(2_000)
    heir = await broker.agent()
    await heir.open()
    elsewhere = {**step_body()["action"], "resource": "order/2"}  # on the same one, the doubt would block it
    return await heir.begin(run, "s2", epoch=2, action=elsewhere)
