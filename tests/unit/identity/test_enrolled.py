"""Assertions by enrolled keys: the SDK's own are accepted, and every way to misuse one has its refusal."""

import contextlib
import hashlib
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forging import ForgersKey, b64, es256, part
from stepgrant._dpop import DpopKey
from stepgrant._exchange import WorkloadKey
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.identity.enrolled import Proven, read_assertion

ISSUER = "https://broker.example"
NOW = 1_790_000_000
KEY = es256()
HEADER: dict[str, object] = {"alg": "ES256", "typ": "client-authentication+jwt"}
CLAIMS: dict[str, object] = {
    "iss": "wkl_1",
    "sub": "wkl_1",
    "aud": ISSUER,
    "iat": NOW,
    "exp": NOW + 60,
    "jti": "jti-0123456789abcdef",
}


def changed(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def assertion(header: Mapping[str, object] | None = None, key: ForgersKey = KEY, /, **claims: object) -> str:
    return key.jws(changed(HEADER, header or {}), changed(CLAIMS, claims))


def attest(token: str) -> Proven:
    return read_assertion(token).verify(KEY.jwk, issuer=ISSUER, now_ms=NOW * 1000)


def refused(token: str) -> str:
    """The reason in the message."""
    with pytest.raises(InvalidToken) as caught:
        attest(token)
    assert caught.value.code == "invalid_token"
    assert token.rsplit(".", maxsplit=1)[-1] not in caught.value.detail or not token.rsplit(".", maxsplit=1)[-1]
    return caught.value.detail.rpartition("(")[2].rstrip(")")


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_the_sdks_assertion_is_accepted(alg: str) -> None:
    key = WorkloadKey.generate("wkl_7", alg=alg)
    now = int(time.time())
    token = key.assertion(ISSUER, now)
    read = read_assertion(token)
    seen = read.verify(key.public_jwk, issuer=ISSUER, now_ms=now * 1000)

    assert read.workload_id == seen.workload_id == "wkl_7"
    assert seen.evidence == "sha-256:" + b64(hashlib.sha256(token.encode()).digest())
    assert seen.dead_at == (now + 60 + 30) * 1000
    assert token not in repr(read) + repr(seen)


def test_the_id_that_counts_once_outlives_the_assertion() -> None:
    token = assertion()
    seen = attest(token)
    read_assertion(token).verify(KEY.jwk, issuer=ISSUER, now_ms=seen.dead_at - 1)
    with pytest.raises(InvalidToken, match="expired"):
        read_assertion(token).verify(KEY.jwk, issuer=ISSUER, now_ms=seen.dead_at)


def test_typ_may_be_absent() -> None:
    assert attest(assertion({"typ": ...})).jti == "jti-0123456789abcdef"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, "bad_algorithm"),
        ({"alg": "HS256"}, "bad_algorithm"),
        ({"alg": "EdDSA"}, "bad_algorithm"),
        ({"alg": ...}, "malformed"),
        ({"typ": "JWT"}, "wrong_type"),
        ({"typ": "at+jwt"}, "wrong_type"),
        ({"typ": "dpop+jwt"}, "wrong_type"),
        ({"typ": 5}, "wrong_type"),
        ({"crit": ["exp"]}, "unknown_critical"),
    ],
    ids=repr,
)
def test_a_header_that_is_not_an_assertions(header: dict[str, object], reason: str) -> None:
    assert refused(assertion(header)) == reason


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "https://other.example"}, "wrong_audience"),
        ({"aud": ISSUER + "/oauth/token"}, "wrong_audience"),
        ({"aud": [ISSUER]}, "wrong_audience"),
        ({"aud": [ISSUER, "https://other.example"]}, "wrong_audience"),
        ({"aud": ...}, "wrong_audience"),
        ({"exp": NOW - 30}, "expired"),
        ({"exp": NOW + 301}, "lifetime"),
        ({"exp": ...}, "malformed"),
        ({"iat": ...}, "malformed"),
        ({"iat": NOW + 31, "exp": NOW + 60}, "not_yet_valid"),
        ({"nbf": NOW + 31}, "not_yet_valid"),
        ({"iss": "wkl_2"}, "wrong_subject"),
        ({"iss": ...}, "wrong_subject"),
        ({"sub": ...}, "wrong_subject"),
        ({"sub": ""}, "wrong_subject"),
        ({"sub": 5}, "wrong_subject"),
        ({"sub": "x" * 513, "iss": "x" * 513}, "wrong_subject"),
        ({"jti": ...}, "bad_jti"),
        ({"jti": "short"}, "bad_jti"),
        ({"jti": "x" * 201}, "bad_jti"),
        ({"jti": 5}, "bad_jti"),
    ],
    ids=repr,
)
def test_claims_that_are_not_an_assertions(claims: dict[str, object], reason: str) -> None:
    assert refused(assertion(**claims)) == reason


def test_another_workloads_key() -> None:
    assert refused(assertion({}, es256())) == "bad_signature"


def test_a_key_brought_along_in_the_header() -> None:
    mallory = es256()

    assert refused(assertion({"jwk": mallory.jwk, "kid": "k"}, mallory)) == "bad_signature"


def test_no_signature_at_all() -> None:
    assert refused(f"{part(changed(HEADER, {'alg': 'none'}))}.{part(CLAIMS)}.") == "malformed"


def test_a_dpop_proof_by_the_same_key_is_no_assertion() -> None:
    proof = DpopKey().proof("POST", ISSUER + "/oauth/token")

    assert refused(proof) == "wrong_subject"


def test_an_enrolment_with_an_unusable_key_attests_nothing() -> None:
    with pytest.raises(InvalidToken, match="private_key"):
        read_assertion(assertion()).verify(KEY.private_jwk, issuer=ISSUER, now_ms=NOW * 1000)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_as_an_assertion_raises_nothing_foreign(text: str) -> None:
    with contextlib.suppress(InvalidToken):
        attest(text)
        raise AssertionError(text)
