"""Key files, assertions, and the exchange for an access token."""

import asyncio
import copy
import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import jwt
import pytest

from stepgrant import errors
from stepgrant._dpop import DpopKey
from stepgrant._exchange import Exchanged, TokenRequest, WorkloadKey, exchange, exchange_sync

URL = "https://broker.example"
Broker: TypeAlias = Any
"""`WireBroker` of conftest.py, which importlib mode does not let a test import."""


def run_sync(broker: Broker, request: TokenRequest, nonce: str | None = None) -> Exchanged:
    return exchange_sync(broker.client(), request, nonce=nonce)


def run_async(broker: Broker, request: TokenRequest, nonce: str | None = None) -> Exchanged:
    return asyncio.run(exchange(broker.async_client(), request, nonce=nonce))


BOTH = pytest.mark.parametrize("run", [run_sync, run_async])
Run = Callable[..., Exchanged]


def request_for(broker: Broker) -> TokenRequest:
    return TokenRequest(URL, broker.workload, DpopKey())


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_a_key_file_survives_and_is_private(tmp_path: Path, alg: str) -> None:
    key = WorkloadKey.generate("wkl_1", alg=alg)
    path = tmp_path / "workload.key"
    key.save(path)
    again = WorkloadKey.load(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert (again.workload_id, again.public_jwk, again.jkt) == ("wkl_1", key.public_jwk, key.jkt)
    assert set(json.loads(path.read_text())) == {"workload_id", "jwk"}


def test_an_existing_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "workload.key"
    WorkloadKey.generate("one").save(path)
    before = path.read_bytes()
    with pytest.raises(errors.ConfigurationError, match="cannot create"):
        WorkloadKey.generate("two").save(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o666, 0o644])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "workload.key"
    WorkloadKey.generate("wkl_1").save(path)
    path.chmod(mode)
    with pytest.raises(errors.ConfigurationError, match="chmod 600"):
        WorkloadKey.load(path)


def key_document() -> dict[str, Any]:
    key = WorkloadKey.generate("wkl_1")
    return {"workload_id": key.workload_id, "jwk": key._secret.to_private_jwk()}


Change: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | bytes]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda _: b"not json", "not_json", id="text"),
        pytest.param(lambda _: b"[]", "exactly workload_id and jwk", id="list"),
        pytest.param(lambda d: d | {"note": "x"}, "exactly workload_id and jwk", id="more"),
        pytest.param(lambda d: {"jwk": d["jwk"]}, "exactly workload_id and jwk", id="no id"),
        pytest.param(lambda d: d | {"workload_id": 5}, "must be text", id="number"),
        pytest.param(lambda d: d | {"workload_id": ""}, "printable", id="empty id"),
        pytest.param(lambda d: d | {"workload_id": "a\nb"}, "printable", id="two lines"),
        pytest.param(lambda d: d | {"jwk": []}, "must be text and jwk an object", id="list as key"),
        pytest.param(lambda d: d | {"jwk": {}}, "no usable key", id="empty key"),
        pytest.param(lambda d: d | {"jwk": {**d["jwk"], "d": None}}, "no usable key", id="public only"),
        pytest.param(lambda d: d | {"jwk": {**d["jwk"], "d": "A" * 43}}, "no usable key", id="zero"),
    ],
)
def test_a_file_that_is_no_key_is_refused_by_name(tmp_path: Path, change: Change, says: str) -> None:
    path = tmp_path / "workload.key"
    content = change(key_document())
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(0o600)
    with pytest.raises(errors.ConfigurationError, match=says):
        WorkloadKey.load(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(errors.ConfigurationError):
            WorkloadKey.load(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    writer = os.open(tmp_path / "pipe", os.O_RDWR)  # or opening it for reading would wait
    with pytest.raises(errors.ConfigurationError, match="not a regular file"):
        WorkloadKey.load(tmp_path / "pipe")
    os.close(writer)


def test_assertions_are_short_and_each_has_its_own_id() -> None:
    key = WorkloadKey.generate("wkl_1")
    claims = [
        jwt.decode(key.assertion(URL), jwt.PyJWK(key.public_jwk), algorithms=["ES256"], audience=URL) for _ in range(2)
    ]

    assert claims[0]["iss"] == claims[0]["sub"] == "wkl_1"
    assert claims[0]["aud"] == URL
    assert claims[0]["exp"] - claims[0]["iat"] == 60
    assert claims[0]["jti"] != claims[1]["jti"]


@BOTH
def test_the_exchange_follows_the_servers_nonce(broker: Broker, run: Run) -> None:
    request = request_for(broker)
    done = run(broker, request)

    assert (done.token.value, done.token.jkt, done.nonce) == ("access.token.1", request.dpop.jkt, "nonce-1")
    assert 295 < done.token.expires_at - time.time() <= 300
    assert len(broker.seen) == 2
    assert len(broker.assertions) == 1
    assert broker.jkts == {request.dpop.jkt}


@BOTH
def test_a_known_nonce_saves_the_second_round(broker: Broker, run: Run) -> None:
    run(broker, request_for(broker), "nonce-1")

    assert len(broker.seen) == 1


@BOTH
def test_each_try_has_a_fresh_assertion_and_proof(broker: Broker, run: Run) -> None:
    run(broker, request_for(broker))
    first, second = broker.seen

    assert first.content != second.content
    assert first.headers["dpop"] != second.headers["dpop"]


@BOTH
def test_a_server_that_never_accepts_its_nonce_ends_the_exchange(broker: Broker, run: Run) -> None:
    again = httpx.Response(400, json={"error": "use_dpop_nonce"}, headers={"dpop-nonce": "other"})
    broker.script = [again, again]
    with pytest.raises(errors.AuthenticationFailed) as caught:
        run(broker, request_for(broker))

    assert caught.value.code == "use_dpop_nonce"
    assert len(broker.seen) == 2


@BOTH
@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (httpx.Response(401, json={"error": "invalid_client"}), errors.AuthenticationFailed, "invalid_client"),
        (httpx.Response(400, json={"error": "use_dpop_nonce"}), errors.AuthenticationFailed, "use_dpop_nonce"),
        (httpx.Response(429, json={}, headers={"retry-after": "7"}), errors.BrokerUnavailable, "broker_unavailable"),
        (httpx.Response(503, json={"error": "server_error"}), errors.BrokerUnavailable, "server_error"),
        (httpx.Response(502, text="<html>"), errors.BrokerUnavailable, "broker_unavailable"),
        (httpx.Response(404, text="<html>"), errors.BrokerError, "unexpected_answer"),
        (httpx.Response(307, headers={"location": "https://evil.example"}), errors.BrokerError, "unexpected_answer"),
        (httpx.Response(200, text="ok"), errors.BrokerError, "unexpected_answer"),
        (httpx.Response(200, content=b"x" * 300_000), errors.BrokerError, "answer_too_large"),
        (httpx.Response(200, headers={"content-encoding": "br"}), errors.BrokerError, "answer_encoded"),
        (httpx.ConnectError("no"), errors.BrokerUnavailable, "broker_unavailable"),
        (httpx.ReadTimeout("no"), errors.BrokerUnavailable, "broker_unavailable"),
    ],
)
def test_refusals_and_failures_have_names(
    broker: Broker, run: Run, answer: httpx.Response | Exception, kind: type[errors.BrokerError], code: str
) -> None:
    broker.script = [answer]
    with pytest.raises(errors.BrokerError) as caught:
        run(broker, request_for(broker))

    assert type(caught.value) is kind
    assert caught.value.code == code
    assert len(broker.seen) == 1


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        {"token_type": "Bearer"},
        {"token_type": None},
        {"access_token": ""},
        {"access_token": 5},
        {"access_token": "é"},
        {"access_token": "x" * 20_000},
        {"expires_in": 0},
        {"expires_in": True},
        {"expires_in": "300"},
        {"expires_in": 10**9},
    ],
)
def test_an_answer_without_a_bound_token_is_refused(broker: Broker, run: Run, change: dict[str, object]) -> None:
    broker.token_changes = change
    with pytest.raises(errors.BrokerError) as caught:
        run(broker, request_for(broker))

    assert caught.value.code == "unexpected_answer"


def test_no_error_tells_the_token_or_the_assertion(broker: Broker) -> None:
    broker.script = [httpx.ConnectError("no")]
    with pytest.raises(errors.BrokerUnavailable) as caught:
        run_sync(broker, request_for(broker))
    sent = broker.seen[0]

    assert caught.value.__cause__ is None
    for secret in (sent.headers["dpop"], sent.content.decode()):
        assert secret not in str(caught.value)


def test_keys_and_tokens_show_and_give_away_nothing(broker: Broker) -> None:
    token = run_sync(broker, request_for(broker)).token

    assert token.value not in repr(token)
    assert broker.workload._secret.to_private_jwk()["d"] not in repr(broker.workload)
    for thing in (token, broker.workload):
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="neither pickled nor copied"):
                take(thing)


def test_a_token_is_not_used_to_its_last_second(broker: Broker) -> None:
    token = run_sync(broker, request_for(broker)).token

    assert token.usable(token.expires_at - 16)
    assert not token.usable(token.expires_at - 14)
