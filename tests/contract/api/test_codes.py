"""Every code of `protocol.md` §7, provoked over HTTP on the real application; each leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.hand import ask, deny
from fakes.served import Broker, Caller, served, step_body
from stepgrant_broker.api.problems import STATUSES
from stepgrant_broker.domain.errors import StoreUnavailable
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
    return await heir.begin(run, "s2", epoch=2)


# ---------------------------------------------------------------------------------------------------------- 410 - 429


@provokes("grant_expired", Limits(lease_ms=600_000))
async def _expired(broker: Broker) -> httpx.Response:
    _, _, grant = await granted(broker)
    broker.hand.clock.tick(61_000)
    server = await broker.server()
    return await server.call("POST", f"/v1/grants/{grant['jti']}/redeem", redemption())


@provokes("grant_revoked")
async def _revoked(broker: Broker) -> httpx.Response:
    _, _, grant = await granted(broker)
    await broker.person("POST", f"/v1/grants/{grant['jti']}/revoke")
    server = await broker.server()
    return await server.call("POST", f"/v1/grants/{grant['jti']}/redeem", redemption())


@provokes("approval_expired")
async def _answered_late(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    asked = await agent.begin(run, decision=ask(answer_within=60))
    approval = asked.json()["approval_id"]
    shown = await broker.person("GET", f"/v1/approvals/{approval}", who="ann")
    broker.hand.clock.tick(61_000)
    answer = {"verdict": "approve", "digest": shown.json()["digest"]}
    return await broker.person("POST", f"/v1/approvals/{approval}/decide", answer, who="ann")


@provokes("budget_exhausted", Limits(max_steps=1))
async def _too_many_steps(broker: Broker) -> httpx.Response:
    agent, run, _ = await granted(broker)
    return await agent.begin(run, "s2")


# ---------------------------------------------------------------------------------------------------------- 500 - 503


@provokes("internal")
async def _bug(broker: Broker) -> httpx.Response:
    def broken() -> None:
        raise ZeroDivisionError("sgo_a-secret-in-a-message")

    agent, run = await held(broker)
    broker.hand.failpoints.armed["usecase.before_policy"] = broken
    return await agent.begin(run)


@provokes("ledger_unavailable")
async def _full_disk(broker: Broker) -> httpx.Response:
    def full() -> None:
        raise StoreUnavailable("the disk is full", retry_after_ms=2_500)

    agent, run = await held(broker)
    broker.hand.failpoints.armed["usecase.before_commit"] = full
    return await agent.begin(run)


@provokes("policy_unavailable")
async def _no_engine(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    await broker.hand.engine.close()
    return await agent.begin(run)


@provokes("issuer_unavailable")
async def _no_issuer(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    decision = {"effect": "allow", "reasons": ["ok"], "grant": {"issuer": "orders-db", "effect": "once"}}
    return await agent.begin(run, decision=decision)


@provokes("conflict", Limits(max_tries=1))
async def _all_at_once(broker: Broker) -> httpx.Response:
    agent, run = await held(broker)
    calls = [
        agent.call("POST", f"/v1/runs/{run}/steps/p{number}/record", {"epoch": 1, "name": "plan", "result": number})
        for number in range(8)
    ]
    answers = await asyncio.gather(*calls)
    assert answers[0].status_code in {200, 503}
    return next(answer for answer in answers if answer.status_code != 200)


def test_every_code_of_the_table_is_provoked() -> None:
    assert PROVOKED.keys() == STATUSES.keys()


@pytest.mark.parametrize("code", sorted(STATUSES))
async def test_a_code_is_a_problem_document(code: str, tmp_path: Path) -> None:
    async with served(tmp_path, LIMITS[code]) as broker:
        response = await PROVOKED[code](broker)

        body, status = response.json(), STATUSES[code]
        assert (body["code"], response.status_code, body["status"]) == (code, status.http, status.http)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["cache-control"] == "no-store"
        assert body["type"] == f"urn:stepgrant:problem:{code}"
        assert body["title"] == status.title
        assert body["detail"]
        assert "sgo_a-secret" not in response.text
        assert "Traceback" not in response.text
        assert ("retry-after" in response.headers) == (status.waits or code in {"lease_held", "prior_credential_live"})
        assert response.headers.get("www-authenticate", "").startswith("DPoP") == (status.http == 401)


EFFECTS = {"grant_issued", "grant_redeemed", "step_completed", "step_recorded"}
NOTHING_BEFORE = sorted(
    STATUSES.keys() - {"already_redeemed", "duplicate_request", "step_drift", "step_in_doubt", "prior_credential_live",
                       "grant_expired", "grant_revoked", "budget_exhausted", "conflict", "method_not_allowed"}
)  # fmt: skip


@pytest.mark.parametrize("code", NOTHING_BEFORE)
async def test_a_refusal_grants_and_records_nothing(code: str, tmp_path: Path) -> None:
    async with served(tmp_path, LIMITS[code]) as broker:
        await PROVOKED[code](broker)
        broker.hand.failpoints.armed.clear()

        runs = (await broker.person("GET", "/v1/runs")).json()["runs"]
        entries = itertools.chain(*[await broker.entries(run["id"]) for run in runs])
        assert not EFFECTS & set(entries)
