"""One suite for the port `Identity` (token to tenant, subject and expiry), run over every adapter of `adapters.py`."""

from __future__ import annotations

import base64
import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.identity.adapters import ADAPTERS, ISSUER, NOW_S, WORKLOAD, EnrolledKey
from forging import b64, es256
from stepgrant.canonical import digest_bytes
from stepgrant_broker.api.token import Attested
from stepgrant_broker.domain.errors import InvalidToken


@pytest.fixture(params=sorted(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> EnrolledKey:
    made: EnrolledKey = ADAPTERS[request.param]()
    return made


def attest(adapter: EnrolledKey, token: str, *, now_s: int = NOW_S, issuer: str = ISSUER) -> Attested:
    return adapter.read(token).attest(adapter.key.jwk, issuer=issuer, now_ms=now_s * 1000)


def refused(adapter: EnrolledKey, token: str, **changed: Any) -> None:  # noqa: ANN401 - of `attest`
    with pytest.raises(InvalidToken) as caught:
        attest(adapter, token, **changed)
    assert caught.value.code == "invalid_token"
    assert [part for part in token.split(".") if part and part in str(caught.value)] == []


def test_a_right_token_attests_and_is_kept_nowhere(adapter: EnrolledKey) -> None:
    token = adapter.token()
    seen = attest(adapter, token)
    assert (seen.method, seen.jti) == (adapter.method, "0123456789abcdef")
    assert seen.trust_domain
    assert seen.evidence_sha256 == digest_bytes(token.encode())
    assert token not in repr(seen)
    assert token not in repr(adapter.read(token))
    assert adapter.read(token).workload_id == WORKLOAD


def test_its_id_is_to_be_remembered_until_it_is_refused_for_its_age(adapter: EnrolledKey) -> None:
    token = adapter.token()
    dead_s = attest(adapter, token).assertion_dead_at_ms // 1000
    refused(adapter, token, now_s=dead_s)
    assert attest(adapter, token, now_s=dead_s - 1).jti


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example"},
        {"aud": [ISSUER]},
        {"aud": [ISSUER, "https://other.example"]},
        {"aud": ISSUER + "/oauth/token"},
        {"aud": None},
        {"iss": "wkl_02"},
        {"sub": "wkl_02"},
        {"iss": None},
        {"exp": None},
        {"iat": None},
        {"jti": None},
        {"jti": "short"},
        {"exp": NOW_S - 60},
        {"iat": NOW_S + 120, "exp": NOW_S + 180},
        {"exp": NOW_S + 3600},
        {"exp": "tomorrow"},
        {"nbf": NOW_S + 3600},
    ],
    ids=count(),
)
def test_a_wrong_claim_is_refused(adapter: EnrolledKey, claims: dict[str, Any]) -> None:
    refused(adapter, adapter.token(**claims))


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": "HS256"}, {"typ": "at+jwt"}, {"typ": "dpop+jwt"}, {"crit": ["x"], "x": 1}],
    ids=count(),
)  # fmt: skip
def test_a_wrong_header_is_refused(adapter: EnrolledKey, header: dict[str, Any]) -> None:
    refused(adapter, adapter.token(header=header))


def test_another_key_is_refused_whatever_the_header_brings(adapter: EnrolledKey) -> None:
    other = es256()
    refused(adapter, adapter.token(by=other))
    refused(adapter, adapter.token(by=other, header={"jwk": other.jwk}))


def test_a_changed_token_is_refused(adapter: EnrolledKey) -> None:
    header, claims, signature = adapter.token().split(".")
    more = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"sub": WORKLOAD, "admin": True}
    refused(adapter, f"{header}.{b64(json.dumps(more).encode())}.{signature}")
    refused(adapter, f"{header}.{claims}.")
    refused(adapter, f"{header}.{claims}")


@given(text=st.text(max_size=200) | st.binary(max_size=200).map(b64), number=st.integers(0, len(ADAPTERS) - 1))
def test_rubbish_raises_nothing_foreign(text: str, number: int) -> None:
    adapter = ADAPTERS[sorted(ADAPTERS)[number]]()
    for token in (text, f"{text}.{text}.{text}"):
        with pytest.raises(InvalidToken):
            attest(adapter, token)
