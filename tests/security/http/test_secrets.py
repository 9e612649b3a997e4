"""No secret leaves by a side door: not in logs, not in an error, not in metrics, not in a second answer."""

from __future__ import annotations

import io
import logging

import pytest

from fakes.hand import allow
from fakes.served import Broker, fresh_key, step_body
from heard import capture_logs

SECRET = "hunter2-hunter2"


async def test_logs_errors_and_metrics_of_a_run_hold_no_secret(
    broker: Broker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def breaks() -> None:
        raise RuntimeError(f"{SECRET} in a message")

    caplog.set_level(logging.DEBUG)
    texts = []
    with capture_logs() as events:
        agent = await broker.agent()
        await broker.person("PUT", "/v1/secrets/mail", {"value": SECRET, "hosts": ["mail.example"]})
        texts.append((await broker.person("PUT", "/v1/secrets/mail", {"value": SECRET * 2000, "hosts": ["h"]})).text)
        texts.append((await broker.person("PUT", "/v1/secrets/mail", {"value": [SECRET], "hosts": ["h"]})).text)
        run = (await agent.open())["run"]
        body = step_body(allow(issuer="static", params={"secret": "mail"}))
        given = await agent.call("POST", f"/v1/runs/{run}/steps/s1/begin", body)
        assert given.json()["credential"]["fields"]["value"] == SECRET
        for point in ("usecase.before_policy", "usecase.before_commit", "usecase.after_mint"):
            broker.hand.failpoints.armed = {point: breaks}
            failed = await agent.begin(run, f"s-{point.rpartition('.')[2]}", decision=allow(issuer="jwt"))
            assert (failed.status_code, failed.json()["code"]) == (500, "internal")
            texts.append(failed.text)
        broker.hand.failpoints.armed = {}
        texts.append((await broker.client.get("/metrics")).text)

    said = [repr(events), caplog.text, *capfd.readouterr(), *texts]
    secrets = {SECRET, agent.token, *broker.people.values()}
    assert [secret for secret in secrets for text in said if secret in text] == []
    broken = [event for event in events if event["event"] == "unexpected_exception"]
    assert len(broken) == 3
    assert {event["kind"] for event in broken} == {"RuntimeError"}
    assert all("usecases/" in str(event["places"]) for event in broken)


async def test_what_failed_after_the_grant_was_recorded_released_nothing(broker: Broker) -> None:
    def breaks() -> None:
        raise RuntimeError("after the mint")

    agent = await broker.agent()
    run = (await agent.open())["run"]
    broker.hand.failpoints.armed = {"usecase.after_mint": breaks}
    failed = await agent.begin(run)

    assert "credential" not in failed.text
    assert "grant_issued" in await broker.entries(run)


async def test_a_credential_is_sent_once_even_for_the_same_request(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    path, key = f"/v1/runs/{run}/steps/s1/begin", fresh_key()
    first = (await agent.call("POST", path, step_body(), key=key)).json()
    second = (await agent.call("POST", path, step_body(), key=key)).json()

    assert first["credential"]["fields"]["token"] != second["credential"]["fields"]["token"]
    grants = (await broker.person("GET", f"/v1/grants?run={run}")).json()["grants"]
    assert sorted(grant["status"] for grant in grants) == ["issued", "revoked"]


async def test_a_private_key_that_is_sent_for_enrolment_is_refused_and_not_repeated(broker: Broker) -> None:
    private = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"
    jwk = {**broker.agent_key.public_jwk, "d": private}
    response = await broker.person("POST", "/v1/workloads", {"name": "oops", "jwk": jwk, "agents": ["agent"]})

    assert (response.status_code, response.json()["code"], response.json()["field"]) == (400, "invalid_request", "jwk")
    assert private not in response.text
    assert "oops" not in (await broker.person("GET", "/v1/workloads")).text


def test_a_secrets_body_masks_itself() -> None:
    from stepgrant import _wire  # noqa: PLC0415

    assert SECRET not in repr(_wire.SetSecret(value=SECRET, hosts=["h"]))
    assert io.StringIO(repr(_wire.SetSecret(value=SECRET, hosts=["h"]))).read().endswith("value=<masked>)")
