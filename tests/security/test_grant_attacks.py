"""Grants as attackers present them to a resource server: each is refused for its own reason, none is redeemed."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest

from forging import ForgersKey, b64, es256, part
from stepgrant import canonical, errors
from stepgrant._dpop import DpopKey
from stepgrant.verify import Action, GrantVerifier, Presented, Redeemed, Redemption

NOW = 1_790_000_000
BROKER = "https://broker.example"
TOOL = "https://tool.example"
URL = f"{TOOL}/refunds"
ACTION = Action("refund.create", "order/991", {"amount": 100, "to": "acct-42"})
ISSUER = es256()
HOLDER = DpopKey()
HEADER = {"typ": "at+jwt", "alg": "ES256", "kid": "k1"}
DETAIL: dict[str, object] = {
    "type": "stepgrant_action",
    "locations": [TOOL],
    "actions": ["refund.create"],
    "identifier": "order/991",
    "run_id": "run_1",
    "step": "charge",
    "attempt": 2,
    "epoch": 9,
    "args_digest": canonical.action_digest(ACTION.tool, ACTION.resource, ACTION.args),
    "effect": "once",
    "idempotency_key": "sg-1",
    "redeem": "required",
    "max_uses": 1,
    "policy": {"revision": "3:abc", "decision_id": "dec_1"},
}
CLAIMS: dict[str, object] = {
    "iss": BROKER,
    "aud": TOOL,
    "sub": "wkl_1",
    "client_id": "wkl_1",
    "act": {"sub": "wkl_1"},
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 60,
    "jti": "grn_1",
    "txn": "run_1.charge.2",
    "cnf": {"jkt": HOLDER.jkt},
    "authorization_details": [DETAIL],
}


class Redeems:
    """Consents to everything: only the verifier stands between the attacker and the effect."""

    def __init__(self) -> None:
        self.asked: list[Redemption] = []

    def redeem_sync(self, redemption: Redemption) -> Redeemed:
        self.asked.append(redemption)
        return Redeemed((NOW + 10) * 1000)

    async def redeem(self, redemption: Redemption) -> Redeemed:
        return self.redeem_sync(redemption)


def changed(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in {**base, **changes}.items() if value is not ...}


def token(header: Mapping[str, object] | None = None, key: ForgersKey = ISSUER, /, **claims: object) -> str:
    return key.jws(changed(HEADER, header or {}), changed(CLAIMS, claims))


def detailed(**changes: object) -> str:
    return token(authorization_details=[changed(DETAIL, changes)])


def present(value: str, proof_for: str | None = None) -> Presented:
    return Presented("POST", URL, value, HOLDER.proof("POST", URL, token=proof_for or value, now=NOW))


def attempt(presented: Presented, action: Action = ACTION) -> tuple[Any, list[Redemption]]:
    redeemer = Redeems()
    keys: dict[str, canonical.JsonValue] = {"keys": [{**ISSUER.jwk, "kid": "k1"}]}
    verifier = GrantVerifier(issuer=BROKER, audience=TOOL, keys=keys, redeemer=redeemer, clock=lambda: NOW)
    return verifier.verify_sync(presented, action), redeemer.asked


def refused(presented: Presented, action: Action = ACTION) -> tuple[str, str]:
    redeemer = Redeems()
    keys: dict[str, canonical.JsonValue] = {"keys": [{**ISSUER.jwk, "kid": "k1"}]}
    verifier = GrantVerifier(issuer=BROKER, audience=TOOL, keys=keys, redeemer=redeemer, clock=lambda: NOW)
    with pytest.raises(errors.VerificationError) as caught:
        verifier.verify_sync(presented, action)
    assert redeemer.asked == []
    return caught.value.code, caught.value.reason


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


# --------------------------------------------------------------------------------------------------------- the action


@pytest.mark.parametrize(
    "locations", [["https://other.example"], [TOOL, "https://other.example"], [TOOL + "/"]], ids=repr
)
def test_a_grant_for_another_location(locations: list[str]) -> None:
    assert refused(present(detailed(locations=locations))) == ("digest_mismatch", "wrong_location")


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (Action("refund.delete", "order/991", ACTION.args), "wrong_tool"),
        (Action("refund.create", "order/992", ACTION.args), "wrong_resource"),
        (Action("refund.create", None, ACTION.args), "wrong_resource"),
        (Action("refund.create", "order/991", {"amount": 101, "to": "acct-42"}), "wrong_arguments"),
        (Action("refund.create", "order/991", {"amount": 100}), "wrong_arguments"),
        (Action("refund.create", "order/991", {"amount": 100, "to": "acct-42", "cc": None}), "wrong_arguments"),
        (Action("refund.create", "order/991", {"amount": "100", "to": "acct-42"}), "wrong_arguments"),
    ],
    ids=repr,
)
def test_something_else_is_about_to_be_done(action: Action, reason: str) -> None:
    assert refused(present(token()), action) == ("digest_mismatch", reason)


def test_arguments_that_have_no_digest() -> None:
    action = Action("refund.create", "order/991", {"amount": float("nan")})

    assert refused(present(token()), action) == ("invalid_request", "number_out_of_range")


def test_a_digest_that_covers_tool_and_resource_too() -> None:
    other = canonical.action_digest("refund.create", "order/992", ACTION.args)

    assert refused(present(detailed(args_digest=other))) == ("digest_mismatch", "wrong_arguments")


# --------------------------------------------------------------------------------------------------------- the sender


def test_a_stolen_token_with_the_thiefs_own_proof() -> None:
    value = token()
    thief = DpopKey()

    assert refused(Presented("POST", URL, value, thief.proof("POST", URL, token=value, now=NOW))) == (
        "invalid_dpop_proof",
        "wrong_key",
    )


def test_a_proof_made_for_another_token() -> None:
    assert refused(present(token(), proof_for=token(jti="grn_2"))) == ("invalid_dpop_proof", "wrong_token_hash")


def test_a_proof_captured_on_the_way_to_another_url() -> None:
    value = token()
    proof = HOLDER.proof("POST", "https://other.example/refunds", token=value, now=NOW)

    assert refused(Presented("POST", URL, value, proof)) == ("invalid_dpop_proof", "wrong_url")


def test_a_replayed_request() -> None:
    redeemer = Redeems()
    keys: dict[str, canonical.JsonValue] = {"keys": [{**ISSUER.jwk, "kid": "k1"}]}
    verifier = GrantVerifier(issuer=BROKER, audience=TOOL, keys=keys, redeemer=redeemer, clock=lambda: NOW)
    presented = present(token())
    verifier.verify_sync(presented, ACTION)
    with pytest.raises(errors.InvalidProof) as caught:
        verifier.verify_sync(presented, ACTION)

    assert caught.value.reason == "replayed"
    assert len(redeemer.asked) == 1


def test_a_zombie_of_an_older_epoch() -> None:
    redeemer = Redeems()
    keys: dict[str, canonical.JsonValue] = {"keys": [{**ISSUER.jwk, "kid": "k1"}]}
    verifier = GrantVerifier(issuer=BROKER, audience=TOOL, keys=keys, redeemer=redeemer, clock=lambda: NOW)
    verifier.verify_sync(present(detailed(epoch=10)), ACTION)
    with pytest.raises(errors.GrantSuperseded) as caught:
        verifier.verify_sync(present(detailed(epoch=9)), ACTION)

    assert caught.value.code == "stale_epoch"
    assert len(redeemer.asked) == 1


@pytest.mark.parametrize(
    ("headers", "code", "reason"),
    [
        ([], "invalid_token", "missing"),
        ([("dpop", "p")], "invalid_token", "missing"),
        ([("authorization", "DPoP t"), ("authorization", "DPoP t"), ("dpop", "p")], "invalid_token", "many_tokens"),
        ([("authorization", "Bearer t"), ("dpop", "p")], "invalid_token", "not_dpop"),
        ([("authorization", "Basic t"), ("dpop", "p")], "invalid_token", "not_dpop"),
        ([("authorization", "t"), ("dpop", "p")], "invalid_token", "not_dpop"),
        ([("authorization", "DPoP t")], "invalid_dpop_proof", "missing"),
        ([("authorization", "DPoP t"), ("dpop", "p"), ("DPoP", "p")], "invalid_dpop_proof", "many_proofs"),
    ],
    ids=repr,
)
def test_headers_that_are_not_one_token_and_one_proof(headers: list[tuple[str, str]], code: str, reason: str) -> None:
    with pytest.raises(errors.VerificationError) as caught:
        Presented.of("POST", URL, headers)

    assert (caught.value.code, caught.value.reason) == (code, reason)


def test_refusals_do_not_tell_what_was_expected() -> None:
    with pytest.raises(errors.VerificationError) as caught:
        attempt(present(token()), Action("refund.create", "order/991", {"secret": "hunter2"}))
    text = repr(caught.value) + str(caught.value)

    assert "hunter2" not in text
    assert str(DETAIL["args_digest"]) not in text
