"""Grant tokens that are not what they say: each is refused for its own reason, none is redeemed."""

import hashlib
import hmac
import json
from collections.abc import Mapping

import pytest

from forged_grants import (
    BROKER,
    CLAIMS,
    DETAIL,
    HEADER,
    ISSUER,
    NOW,
    TOOL,
    attempt,
    changed,
    detailed,
    present,
    refused,
    token,
)
from forging import b64, es256, part


def test_the_untouched_grant_is_accepted_and_redeemed_once() -> None:
    verified, asked = attempt(present(token()))

    assert verified.jti == "grn_1"
    assert len(asked) == 1


# ------------------------------------------------------------------------------------------------------- the envelope


@pytest.mark.parametrize("alg", ["none", "NONE", "HS256", "RS256", "PS256", "ES384", ""])
def test_alg_is_not_one_of_ours(alg: str) -> None:
    assert refused(present(token({"alg": alg}))) == ("invalid_token", "bad_algorithm")


def test_alg_is_looked_at_before_any_key_is_looked_up() -> None:
    assert refused(present(token({"alg": "none", "kid": "k2"}))) == ("invalid_token", "bad_algorithm")


def test_alg_is_one_of_ours_but_not_the_keys() -> None:
    assert refused(present(token({"alg": "EdDSA"}))) == ("invalid_token", "bad_algorithm")


def test_alg_none_without_a_signature() -> None:
    forged = f"{part({**HEADER, 'alg': 'none'})}.{part(CLAIMS)}."

    assert refused(present(forged)) == ("invalid_token", "malformed")


def test_a_mac_keyed_with_the_public_key() -> None:
    signing_input = f"{part({**HEADER, 'alg': 'HS256'})}.{part(CLAIMS)}"
    mac = hmac.digest(json.dumps(ISSUER.jwk).encode(), signing_input.encode(), hashlib.sha256)

    assert refused(present(f"{signing_input}.{b64(mac)}")) == ("invalid_token", "bad_algorithm")


def test_the_attackers_key_brought_along_in_the_header() -> None:
    mallory = es256()
    extras: list[Mapping[str, object]] = [
        {"jwk": mallory.jwk},
        {"jku": "https://e"},
        {"x5c": ["AA"]},
        {"x5u": "https://e"},
    ]
    for extra in extras:
        assert refused(present(token(extra, mallory))) == ("invalid_token", "bad_signature")


@pytest.mark.parametrize("kid", [..., "", "k2", 5, None, "../k1", "k1 "])
def test_a_kid_that_no_key_of_the_issuer_has(kid: object) -> None:
    assert refused(present(token({"kid": kid}))) == ("invalid_token", "unknown_key")


@pytest.mark.parametrize("typ", [..., "JWT", "dpop+jwt", "client-authentication+jwt", "at+jwt2", 5])
def test_a_token_of_another_type(typ: object) -> None:
    assert refused(present(token({"typ": typ}))) == ("invalid_token", "wrong_type")


@pytest.mark.parametrize("crit", [["b64"], [], ["exp"]])
def test_an_extension_that_must_be_understood(crit: object) -> None:
    assert refused(present(token({"crit": crit}))) == ("invalid_token", "unknown_critical")


def test_a_payload_exchanged_under_a_true_signature() -> None:
    head, _, signature = token().split(".")
    more = part(changed(CLAIMS, {"authorization_details": [changed(DETAIL, {"epoch": 10})]}))

    assert refused(present(f"{head}.{more}.{signature}")) == ("invalid_token", "bad_signature")


def test_oversized_tokens() -> None:
    assert refused(present(token(pad="x" * 16_384))) == ("invalid_token", "too_large")


def test_duplicate_claims() -> None:
    text = json.dumps(CLAIMS).replace('"aud"', '"aud": "https://other.example", "aud"').encode()

    assert refused(present(ISSUER.jws(HEADER, text))) == ("invalid_token", "malformed")


# --------------------------------------------------------------------------------------------------------- the claims


@pytest.mark.parametrize("iss", ["https://evil.example", BROKER + "/", BROKER.upper(), [BROKER], None, ...])
def test_another_issuer(iss: object) -> None:
    assert refused(present(token(iss=iss))) == ("invalid_token", "wrong_issuer")


@pytest.mark.parametrize(
    "aud", ["https://other.example", [TOOL], [TOOL, "https://other.example"], TOOL + "/", "", None, ...]
)
def test_another_audience_or_several(aud: object) -> None:
    assert refused(present(token(aud=aud))) == ("invalid_token", "wrong_audience")


@pytest.mark.parametrize("tenant", ["globex", "", "Default", "default ", None, True, ["default"], {"id": "default"}])
def test_a_grant_of_another_tenant_by_the_same_issuer_for_this_very_audience(tenant: object) -> None:
    assert refused(present(token(tenant=tenant))) == ("invalid_token", "wrong_tenant")


def test_a_grant_that_names_no_tenant_is_nobodys() -> None:
    assert refused(present(token(tenant=...))) == ("invalid_token", "no_tenant")


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"exp": NOW - 6, "iat": NOW - 60}, "expired"),
        ({"exp": NOW - 5, "iat": NOW - 60}, "expired"),
        ({"iat": NOW + 6}, "not_yet_valid"),
        ({"nbf": NOW + 6}, "not_yet_valid"),
        ({"exp": NOW + 301}, "lifetime"),
        ({"exp": NOW, "iat": NOW + 1}, "lifetime"),
        ({"exp": ...}, "malformed"),
        ({"iat": ...}, "malformed"),
        ({"nbf": ...}, "malformed"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": NOW + 0.5}, "malformed"),
        ({"nbf": None}, "malformed"),
        ({"iat": -1}, "malformed"),
    ],
    ids=repr,
)
def test_a_token_of_another_time(times: dict[str, object], reason: str) -> None:
    assert refused(present(token(**times))) == ("invalid_token", reason)


@pytest.mark.parametrize("claim", ["sub", "client_id", "jti"])
@pytest.mark.parametrize("value", [..., "", None, 5])
def test_a_claim_that_must_be_there(claim: str, value: object) -> None:
    assert refused(present(token(**{claim: value}))) == ("invalid_token", "malformed")


@pytest.mark.parametrize(
    ("cnf", "reason"),
    [(..., "not_bound"), (None, "not_bound"), ("jkt", "not_bound"), ({}, "malformed"), ({"jkt": ""}, "malformed")],
)
def test_a_token_that_is_bound_to_no_key(cnf: object, reason: str) -> None:
    assert refused(present(token(cnf=cnf))) == ("invalid_token", reason)


@pytest.mark.parametrize(
    "details",
    [..., None, [], [DETAIL, DETAIL], DETAIL, "text"],
    ids=lambda d: str(type(d)) + str(len(d) if isinstance(d, list) else ""),
)
def test_not_exactly_one_detail(details: object) -> None:
    assert refused(present(token(authorization_details=details))) == ("invalid_token", "detail_count")


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "vault:path_access"},
        {"only_before": "2026-11-21"},
        {"policy": {"revision": "3:abc", "decision_id": "dec_1", "extra": 1}},
        {"policy": {"revision": "3:abc"}},
        {"approval": {"id": "apr_1", "extra": 1}},
        {"redeem": "never"},
        {"redeem": ...},
        {"effect": "destructive"},
        {"max_uses": 0},
        {"epoch": 0},
        {"epoch": True},
        {"epoch": "9"},
        {"epoch": 9.0},
        {"attempt": ...},
        {"run_id": ""},
        {"actions": []},
        {"actions": ["refund.create", "refund.delete"]},
        {"actions": "refund.create"},
        {"locations": []},
        {"args_digest": None},
    ],
    ids=repr,
)
def test_a_detail_that_this_library_does_not_know_in_full(changes: dict[str, object]) -> None:
    assert refused(present(detailed(**changes))) == ("invalid_token", "detail_shape")
