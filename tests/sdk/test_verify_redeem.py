"""Redeeming over HTTP: who asks, what is repeated, and that nothing but the broker's consent is consent."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
import pytest

from stepgrant import errors
from stepgrant.verify import BrokerRedeemer, Redeemed, Redemption, WorkloadKey, _redeem

URL = "https://broker.example"
ONE = Redemption("grn_1", "rdm_1", "sha-256:abc", "proof-1")
Broker: TypeAlias = Any
"""`WireBroker` of conftest.py, which importlib mode does not let a test import."""


def redeemer(broker: Broker) -> BrokerRedeemer:
    return BrokerRedeemer(URL, broker.workload, client=broker.client(), async_client=broker.async_client())


def run_sync(made: BrokerRedeemer, redemption: Redemption = ONE) -> Redeemed:
    return made.redeem_sync(redemption)


def run_async(made: BrokerRedeemer, redemption: Redemption = ONE) -> Redeemed:
    return asyncio.run(made.redeem(redemption))


BOTH = pytest.mark.parametrize("run", [run_sync, run_async])
Run = Callable[..., Redeemed]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_redeem, "_PAUSE_S", 0)


def paths(broker: Broker) -> list[str]:
    return [request.url.path for request in broker.seen]


@BOTH
def test_a_redemption_signs_in_and_gets_the_time_to_act(broker: Broker, run: Run) -> None:
    before = time.time() * 1000
    done = run(redeemer(broker))

    assert before + 9_500 < done.act_before < time.time() * 1000 + 10_001
    assert broker.redeemed == {"grn_1": ("rdm_1", "proof-1")}
    assert paths(broker) == ["/oauth/token", "/oauth/token", "/v1/grants/grn_1/redeem"]


def test_one_sign_in_serves_many_redemptions(broker: Broker) -> None:
    made = redeemer(broker)
    for number in range(5):
        made.redeem_sync(Redemption(f"grn_{number}", f"rdm_{number}", "sha-256:abc", "p"))

    assert len(broker.seen) == 2 + 5
    assert len(broker.jkts) == 1


@BOTH
@pytest.mark.parametrize("skew_ms", [-3_600_000, 3_600_000])
def test_a_broker_with_another_clock_makes_the_time_no_longer(broker: Broker, run: Run, skew_ms: int) -> None:
    broker.skew_ms = skew_ms
    done = run(redeemer(broker))

    assert done.act_before - time.time() * 1000 <= 10_000


@BOTH
def test_a_new_nonce_is_followed_and_kept(broker: Broker, run: Run) -> None:
    made = redeemer(broker)
    run(made)
    broker.nonce = "nonce-2"
    broker.seen.clear()
    run(made, Redemption("grn_2", "rdm_2", "sha-256:abc", "p"))
    assert len(broker.seen) == 2
    run(made, Redemption("grn_3", "rdm_3", "sha-256:abc", "p"))

    assert len(broker.seen) == 3


@BOTH
def test_a_lost_answer_is_asked_for_again_under_the_same_id(broker: Broker, run: Run) -> None:
    made = redeemer(broker)
    run(made, Redemption("grn_0", "rdm_0", "sha-256:abc", "p"))
    broker.seen.clear()
    broker.script = [httpx.ReadTimeout("lost"), httpx.Response(503, json={"code": "ledger_unavailable"}), None]
    run(made)

    bodies = {request.content for request in broker.seen}
    assert len(broker.seen) == 3
    assert len(bodies) == 1
    assert {request.headers["idempotency-key"] for request in broker.seen} == {"rdm_1"}
    assert len({request.headers["dpop"] for request in broker.seen}) == 3


@BOTH
def test_a_token_that_is_not_accepted_any_more_is_renewed(broker: Broker, run: Run) -> None:
    made = redeemer(broker)
    run(made, Redemption("grn_0", "rdm_0", "sha-256:abc", "p"))
    broker.seen.clear()
    broker.script = [httpx.Response(401, json={"code": "invalid_token"})]
    run(made)

    assert paths(broker) == ["/v1/grants/grn_1/redeem", "/oauth/token", "/v1/grants/grn_1/redeem"]


@BOTH
@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (400, "digest_mismatch", errors.DigestMismatch, "broker_says_other_action"),
        (403, "quarantined", errors.GrantRevoked, "quarantined"),
        (404, "unknown_grant", errors.InvalidToken, "unknown_grant"),
        (409, "already_redeemed", errors.AlreadyRedeemed, "spent"),
        (409, "stale_epoch", errors.GrantSuperseded, "fenced"),
        (410, "grant_expired", errors.GrantExpired, "expired"),
        (410, "grant_revoked", errors.GrantRevoked, "revoked"),
        (403, "forbidden", errors.VerificationUnavailable, "broker_unavailable"),
        (409, "duplicate_request", errors.VerificationUnavailable, "broker_unavailable"),
        (429, "budget_exhausted", errors.VerificationUnavailable, "broker_unavailable"),
        (418, "teapot", errors.VerificationUnavailable, "broker_unavailable"),
        (200, "digest_mismatch", errors.VerificationUnavailable, "broker_unavailable"),
        (201, None, errors.VerificationUnavailable, "broker_unavailable"),
    ],
)
def test_a_refusal_is_final_and_has_its_name(
    broker: Broker, run: Run, status: int, code: str | None, kind: type[errors.VerificationError], reason: str
) -> None:
    broker.script = [None, None, httpx.Response(status, json={"code": code})]
    with pytest.raises(errors.VerificationError) as caught:
        run(redeemer(broker))

    assert (type(caught.value), caught.value.reason) == (kind, reason)
    assert len(broker.seen) == 3


@BOTH
@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("down"),
        httpx.Response(503, json={"code": "ledger_unavailable"}),
        httpx.Response(502, text="<html>"),
        httpx.Response(200, headers={"content-encoding": "gzip"}),
        httpx.Response(401, json={"code": "use_dpop_nonce"}, headers={"dpop-nonce": "never right"}),
    ],
)
def test_out_of_reach_is_refused_after_a_few_tries(
    broker: Broker, run: Run, answer: httpx.Response | Exception
) -> None:
    made = redeemer(broker)
    run(made, Redemption("grn_0", "rdm_0", "sha-256:abc", "p"))
    broker.seen.clear()
    broker.script = [answer] * 20
    with pytest.raises(errors.VerificationUnavailable) as caught:
        run(made)

    assert caught.value.reason == "broker_unavailable"
    assert len(broker.seen) == 4
    assert "grn_1" not in broker.redeemed


@BOTH
def test_a_server_that_is_not_enrolled_is_told_so_at_once(broker: Broker, run: Run) -> None:
    broker.script = [httpx.Response(401, json={"error": "invalid_client"})]
    with pytest.raises(errors.VerificationUnavailable, match="does not accept this server's identity"):
        run(redeemer(broker))

    assert len(broker.seen) == 1


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"act_before": 5},
        {"act_before": "soon", "now": 1},
        {"act_before": None, "now": None},
        {"act_before": 5.5, "now": 1},
    ],
    ids=repr,
)
def test_a_consent_without_times_is_none(broker: Broker, run: Run, body: dict[str, object]) -> None:
    broker.script = [None, None, httpx.Response(200, json=body)]
    with pytest.raises(errors.VerificationUnavailable):
        run(redeemer(broker))


@BOTH
def test_a_consent_whose_time_is_over_is_none(broker: Broker, run: Run) -> None:
    broker.window_ms = 0
    with pytest.raises(errors.GrantExpired) as caught:
        run(redeemer(broker))

    assert caught.value.reason == "too_late"


@BOTH
def test_a_consent_is_never_longer_than_a_minute(broker: Broker, run: Run) -> None:
    broker.window_ms = 10**9

    assert run(redeemer(broker)).act_before <= time.time() * 1000 + 60_000


def test_a_jti_cannot_lead_to_another_path(broker: Broker) -> None:
    redeemer(broker).redeem_sync(Redemption("../../x?y#z", "rdm_1", "sha-256:abc", "p"))

    assert broker.seen[-1].url.raw_path == b"/v1/grants/..%2F..%2Fx%3Fy%23z/redeem"


def test_a_forked_server_signs_in_with_a_key_of_its_own(broker: Broker) -> None:
    made = redeemer(broker)
    made.redeem_sync(ONE)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run in here
        try:
            made.redeem_sync(Redemption("grn_2", "rdm_2", "sha-256:abc", "p"))
            said = str(len(broker.jkts)).encode()
        except errors.StepgrantError as error:
            said = error.code.encode()
        os.write(writer, said)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"2"


async def test_own_connections_are_opened_and_closed() -> None:
    made = BrokerRedeemer("http://127.0.0.1:1", WorkloadKey.generate("wkl_1"), timeout_s=1)
    with pytest.raises(errors.VerificationUnavailable):
        await made.redeem(ONE)
    with pytest.raises(errors.VerificationUnavailable):
        made.redeem_sync(ONE)
    assert made._session.client is not None
    assert made._session.async_client is not None
    made.close()
    await made.aclose()

    opened = [made._session.client, made._session.async_client]
    assert opened == [None, None]


def test_a_broker_is_reached_over_https_or_on_this_machine() -> None:
    with pytest.raises(errors.ConfigurationError):
        BrokerRedeemer("http://broker.example", WorkloadKey.generate("wkl_1"))
