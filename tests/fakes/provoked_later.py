"""The codes from 410 on; with those of `provoked.py`, one way to provoke each."""

from __future__ import annotations

import asyncio

import httpx

from fakes.hand import ask
from fakes.outside import LOGIN, OutsideIssuer
from fakes.provoked import LIMITS, PROVOKED, granted, held, provokes, redemption
from fakes.served import Broker, step_body
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.settings import Limits

__all__ = ["LIMITS", "PROVOKED"]


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


@provokes("suspected_duplicate")
async def _started_again(broker: Broker) -> httpx.Response:
    agent, run, _ = await granted(broker, id_source="call_id")
    done = {"epoch": 1, "attempt": 1, "result": "ok"}
    await agent.call("POST", f"/v1/runs/{run}/steps/s1/complete", done)
    broker.hand.clock.tick(400_000)
    again = await broker.agent()
    await again.open()
    body = step_body(epoch=2, id_source="call_id")
    await again.call("POST", f"/v1/runs/{run}/steps/s2/prepare", body)
    return await again.call("POST", f"/v1/runs/{run}/steps/s2/start", body)


@provokes("run_not_ended")
async def _erased_too_early(broker: Broker) -> httpx.Response:
    _, run = await held(broker)
    return await broker.person("POST", f"/v1/runs/{run}/erase")


@provokes("leases_not_confirmed")
async def _erased_with_a_living_login(broker: Broker) -> httpx.Response:
    issuers = broker.ports.issuers
    assert isinstance(issuers, dict)
    issuers["outside"] = OutsideIssuer(confirms=False)
    agent, run = await held(broker)
    await agent.begin(run, decision=LOGIN)
    await broker.person("POST", f"/v1/runs/{run}/cancel")
    return await broker.person("POST", f"/v1/runs/{run}/erase")


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
