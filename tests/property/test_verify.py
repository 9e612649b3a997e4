"""Whatever reaches a verifier, a key source, a redeemer or an exchange: one of our errors, or a true verification."""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forging import es256
from stepgrant import canonical, errors
from stepgrant._dpop import DpopKey
from stepgrant._exchange import AccessToken, TokenRequest, exchange_sync
from stepgrant.verify import (
    Action,
    BrokerRedeemer,
    GrantVerifier,
    HttpRequest,
    JwksSource,
    Presented,
    Redemption,
    StepgrantMiddleware,
    WorkloadKey,
    _redeem,
)


@pytest.fixture(autouse=True, scope="module")
def no_pause() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_redeem, "_PAUSE_S", 0)
        yield


NOW = 1_790_000_000
TOOL = "https://tool.example"
ISSUER = es256()
HOLDER = DpopKey()
WORKLOAD = WorkloadKey.generate("wkl_1")
DETAIL: dict[str, object] = {
    "type": "stepgrant_action",
    "locations": [TOOL],
    "actions": ["t"],
    "run_id": "run_1",
    "step": "s",
    "attempt": 1,
    "epoch": 1,
    "args_digest": canonical.action_digest("t", None, {}),
    "effect": "read",
    "redeem": "optional",
    "max_uses": 1,
    "policy": {"revision": "1:a", "decision_id": "dec_1"},
}
CLAIMS: dict[str, object] = {
    "iss": "https://broker.example",
    "aud": TOOL,
    "tenant": "default",
    "sub": "wkl_1",
    "client_id": "wkl_1",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 60,
    "jti": "grn_1",
    "cnf": {"jkt": HOLDER.jkt},
    "authorization_details": [DETAIL],
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(st.characters(max_codepoint=0xFF), max_size=60)


def verifier() -> GrantVerifier:
    keys: dict[str, canonical.JsonValue] = {"keys": [{**ISSUER.jwk, "kid": "k1"}]}
    return GrantVerifier(issuer="https://broker.example", audience=TOOL, keys=keys, clock=lambda: NOW)


def present(claims: object) -> Presented:
    token = ISSUER.jws({"typ": "at+jwt", "alg": "ES256", "kid": "k1"}, claims)
    return Presented("POST", TOOL, token, HOLDER.proof("POST", TOOL, token=token, now=NOW))


def test_the_starting_point_is_accepted() -> None:
    assert verifier().verify_sync(present(CLAIMS), Action("t", None, {})).jti == "grn_1"


@given(st.sampled_from(sorted(CLAIMS)), json_values)
def test_no_other_value_of_a_claim_is_taken_for_the_true_one(name: str, value: object) -> None:
    try:
        verified = verifier().verify_sync(present({**CLAIMS, name: value}), Action("t", None, {}))
    except errors.VerificationError:
        return
    # What may differ: who it is for, its id, and times that lie within the rules.
    assert name in {"sub", "client_id", "jti", "iat", "nbf", "exp"}
    assert verified.run_id == "run_1"


@given(st.sampled_from(sorted(DETAIL)), json_values)
def test_no_other_value_of_a_detail_is_taken_for_the_true_one(name: str, value: object) -> None:
    claims = {**CLAIMS, "authorization_details": [{**DETAIL, name: value}]}
    try:
        verifier().verify_sync(present(claims), Action("t", None, {}))
    except errors.VerificationError:
        return
    assert name in {"run_id", "step", "attempt", "epoch", "max_uses"}


@given(json_values.filter(lambda value: value != {}))
def test_no_other_arguments_are_taken_for_the_granted_ones(args: Any) -> None:  # noqa: ANN401
    with contextlib.suppress(errors.VerificationError):
        verifier().verify_sync(present(CLAIMS), Action("t", None, args))
        raise AssertionError(args)


async def no_application(*_: object) -> None:
    raise AssertionError("the application ran")


def read(request: HttpRequest) -> Action:
    return Action("t", None, request.json())


@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"DPoP", b"dpop", b"host", b"x"]), st.binary(max_size=60))),
    st.binary(max_size=40),
    st.binary(max_size=20),
)
def test_no_bytes_make_the_application_run(headers: list[tuple[bytes, bytes]], body: bytes, path: bytes) -> None:
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:  # noqa: ANN401
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path.decode("latin-1"), "raw_path": path, "headers": headers}
    asyncio.run(StepgrantMiddleware(no_application, verifier(), read)(scope, receive, send))

    assert sent[0]["status"] in {400, 401}
    json.loads(sent[1]["body"])


answers = st.builds(
    lambda status, headers, body: (status, headers, body),
    st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 409, 410, 429, 500, 503]),
    st.dictionaries(st.sampled_from(["dpop-nonce", "retry-after", "cache-control", "content-encoding"]), texts),
    st.binary(max_size=60)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("error", "code", "access_token", "expires_in", "token_type", "act_before", "now", "keys"), json_values
        ),
    ).map(lambda value: json.dumps(value).encode()),
)


def client(answer: tuple[int, dict[str, str], bytes]) -> httpx.Client:
    status, headers, body = answer
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return httpx.Client(
        transport=httpx.MockTransport(lambda _: httpx.Response(status, headers=encoded, stream=httpx.ByteStream(body)))
    )


@given(answers)
def test_any_answer_to_an_exchange(answer: tuple[int, dict[str, str], bytes]) -> None:
    with contextlib.suppress(errors.BrokerError):
        exchange_sync(client(answer), TokenRequest("https://broker.example", WORKLOAD, HOLDER))


@given(answers)
def test_any_answer_as_a_key_set(answer: tuple[int, dict[str, str], bytes]) -> None:
    source = JwksSource("https://broker.example/jwks.json", client=client(answer))
    with contextlib.suppress(errors.VerificationError):
        source.find_sync("k1")
        raise AssertionError(answer)


@given(answers)
def test_any_answer_to_a_redemption(answer: tuple[int, dict[str, str], bytes]) -> None:
    made = BrokerRedeemer("https://broker.example", WORKLOAD, client=client(answer))
    made._session.token = _token()
    with contextlib.suppress(errors.VerificationError):
        made.redeem_sync(Redemption("grn_1", "rdm_1", "sha-256:a", "p"))
        # Only a consent that names both times is one.
        assert {"act_before", "now"} <= set(json.loads(answer[2]))


def _token() -> AccessToken:
    return AccessToken("token", 4e9, HOLDER.jkt)
