"""Identity tokens as attackers bring them, at the real token endpoint; the issuer is another process with real keys.

Each attack has its name, its exact error, and is seen to have changed nothing: no token, no entry, no workload.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from door import METHODS, Door
from forging import b64, part, rs256
from trusted import BROKER, claims_of


@pytest.mark.parametrize("method", METHODS)
async def test_who_has_a_rule_gets_in_under_the_names_of_the_rule(door: Door, method: str) -> None:
    answer = await door.admits(door.token(method))
    claims = json.loads(base64.urlsafe_b64decode(answer["access_token"].split(".")[1] + "=="))

    assert answer["token_type"] == "DPoP"
    assert claims["stepgrant"]["method"] == method
    assert (claims["stepgrant"]["tenant"], claims["cnf"]) == ("acme", {"jkt": door.dpop.jkt})
    rows = (await door.broker.person("GET", "/v1/workloads")).json()["workloads"]
    assert [(w["name"], w["kind"], w["agents"]) for w in rows if w["id"] == claims["client_id"]] == [
        ("refunds", method, ["agent"])
    ]
    assert (await door.broker.entries(None))[len(door.before[0]) :] == ["workload_enrolled"]


async def test_an_identity_is_recorded_once_and_many_exchanges_write_nothing(door: Door) -> None:
    token = door.token("kubernetes")
    await door.admits(token)
    after = await door.state()
    await door.admits(token)
    await door.admits(door.token("kubernetes", jti="another"))

    assert await door.state() == after


@pytest.mark.parametrize("method", METHODS)
async def test_wrong_audience(door: Door, method: str) -> None:
    await door.refuses(door.token(method, aud="https://vault.example"), "wrong_audience")
    await door.refuses(door.token(method, aud=...), "wrong_audience")
    if method != "spiffe-jwt":
        await door.refuses(door.token(method, aud=[BROKER, "https://vault.example"]), "wrong_audience")


async def test_another_trust_domain(door: Door) -> None:
    await door.refuses(door.token("spiffe-jwt", sub="spiffe://evil.example/agents/refunds"), "wrong_trust_domain")
    await door.refuses(
        door.token("spiffe-jwt", sub="spiffe://prod.example.evil.example/agents/refunds"), "trust_domain"
    )


async def test_spiffe_path_tricks(door: Door) -> None:
    for sub in (
        "spiffe://prod.example/agents/../refunds",
        "spiffe://prod.example/agents/./refunds",
        "spiffe://prod.example//agents/refunds",
        "spiffe://prod.example/agents/refunds/",
        "spiffe://prod.example/agents/%72efunds",
        "spiffe://prod.example/agents/refunds?x",
        "spiffe://prod.example/agents/refunds#x",
        "spiffe://prod.example:443/agents/refunds",
        "spiffe://root@prod.example/agents/refunds",
        "spiffe://PROD.example/agents/refunds",
        "SPIFFE://prod.example/agents/refunds",
        "spiffe://prod.example",
        "spiffe:///agents/refunds",
        "spiffe://prod.example/" + "a" * 2048,
    ):
        await door.refuses(door.token("spiffe-jwt", sub=sub), "bad_spiffe_id")


async def test_missing_subject(door: Door) -> None:
    await door.refuses(door.token("spiffe-jwt", sub=...), "subject token is no assertion")
    await door.refuses(door.token("oidc", sub=...), "sub is not text")


@pytest.mark.parametrize("method", METHODS)
async def test_alg_none(door: Door, method: str) -> None:
    claims = claims_of(method, door.now_s)
    for alg in ("none", "None", "NONE", ""):
        token = f"{part({'alg': alg, 'typ': 'JWT', 'kid': door.kid(method)})}.{part(claims)}."
        await door.refuses(token, "malformed")
        await door.refuses(token + "AAAA", "bad_algorithm")


@pytest.mark.parametrize("method", METHODS)
async def test_hs256_with_the_public_key(door: Door, method: str) -> None:
    """The classic confusion: the public key, in whatever form, as the secret of an HMAC."""
    kid = door.kid(method)
    jwk = next(key for key in door.issuer.published() if key["kid"] == kid)
    for secret in (json.dumps(jwk).encode(), jwk["n"].encode(), base64.urlsafe_b64decode(jwk["n"] + "==")):
        signing_input = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{part(claims_of(method, door.now_s))}"
        mac = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
        await door.refuses(f"{signing_input}.{b64(mac)}", "bad_algorithm")


async def test_key_confusion_by_kid(door: Door) -> None:
    ours = {key["alg"]: key["kid"] for key in door.issuer.published() if key["use"] == "sig"}
    claims = claims_of("oidc", door.now_s)
    # Signed by one key and named after another; and an algorithm of one kind with the key of another kind.
    await door.refuses(door.issuer.sign(claims, {"kid": ours["ES256"]}, kid=ours["RS256"]), "unknown_key")
    await door.refuses(door.issuer.sign(claims, {"alg": "ES256"}, kid=ours["RS256"]), "unknown_key")
    await door.refuses(door.issuer.sign(claims, {"alg": "PS256"}, kid=ours["RS256"]), "bad_algorithm")
    await door.refuses(door.issuer.sign(claims, {"kid": door.kid("spiffe-jwt")}), "unknown_key")
    # A key that is meant for SPIFFE does not sign for OIDC of the same host, nor the other way round.
    await door.refuses(door.issuer.sign(claims, kid=door.kid("spiffe-jwt")), "unknown_key")
    svid = claims_of("spiffe-jwt", door.now_s)
    await door.refuses(door.issuer.sign(svid, kid=ours["RS256"]), "unknown_key")


async def test_an_algorithm_that_this_issuer_does_not_have_in_the_file(door: Door) -> None:
    claims = claims_of("oidc", door.now_s, iss="https://other.example")
    await door.refuses(door.issuer.sign(claims, kid=door.kid("oidc")), "bad_algorithm")


@pytest.mark.parametrize("method", METHODS)
async def test_a_key_in_the_header(door: Door, method: str) -> None:
    mallory = rs256()
    claims = claims_of(method, door.now_s)
    for more in (
        {"jwk": mallory.jwk},
        {"jku": f"{door.issuer.url}/evil"},
        {"x5u": f"{door.issuer.url}/evil"},
        {"x5c": ["MIIB"]},
    ):
        await door.refuses(mallory.jws({"alg": "RS256", "kid": door.kid(method), **more}, claims), "foreign_key")
        await door.refuses(door.token(method, more), "foreign_key")
    assert door.issuer.fetches("/evil") == 0


async def test_a_foreign_key_under_a_known_kid(door: Door) -> None:
    header = {"alg": "RS256", "kid": door.kid("oidc"), "typ": "JWT"}
    await door.refuses(rs256().jws(header, claims_of("oidc", door.now_s)), "bad_signature")
