"""Identity tokens that the issuer did sign, and that are still no right to come in.

As in `test_forged.py`, each is refused with its exact error, and nothing was changed.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from door import METHODS, TYPE_ID, Door
from forging import ForgersKey, b64, es256, part
from issuer_process import DISCOVERY, JWKS
from stepgrant._dpop import DpopKey
from trusted import ISSUERS, claims_of


@pytest.mark.parametrize("method", METHODS)
async def test_expired_not_yet_valid_and_too_long_lived(door: Door, method: str) -> None:
    now = door.now_s
    await door.refuses(door.token(method, exp=now - 31, iat=now - 600), "expired")
    await door.refuses(door.token(method, nbf=now + 31), "not_yet_valid")
    await door.refuses(door.token(method, iat=now + 31), "not_yet_valid")
    await door.refuses(door.token(method, iat=now, exp=now + 3601), "lifetime")
    await door.refuses(door.token(method, exp=...), "malformed")


async def test_a_token_without_iat_is_measured_from_now(door: Door) -> None:
    await door.refuses(door.token("spiffe-jwt", iat=..., exp=door.now_s + 3602), "lifetime")
    await door.admits(door.token("spiffe-jwt", iat=..., exp=door.now_s + 3600))


async def test_duplicate_claims(door: Door) -> None:
    key = es256()
    header = part({"alg": "ES256", "kid": "k"})
    text = json.dumps(claims_of("oidc", door.now_s))[:-1] + ', "sub": "repo/acme/admin"}'
    await door.refuses(f"{header}.{b64(text.encode())}.{b64(key.sign(b''))}", "duplicate_key")


async def test_a_header_that_svids_do_not_have(door: Door) -> None:
    await door.refuses(door.token("spiffe-jwt", {"cty": "JWT"}), "foreign_header")


@pytest.mark.parametrize("method", METHODS)
async def test_another_kind_of_token_by_the_same_issuer(door: Door, method: str) -> None:
    for typ in ("at+jwt", "dpop+jwt", "logout+jwt", "client-authentication+jwt", "wit+jwt"):
        await door.refuses(door.token(method, {"typ": typ}), "wrong_type")


async def test_an_issuer_of_the_file_under_another_method(door: Door) -> None:
    # The issuer's own signature on another method's identity: iss selects, and that method has no rule for it.
    oidc = door.token("oidc", sub="spiffe://prod.example/agents/refunds")
    await door.refuses(oidc, "no rule of the trust file")
    kubernetes = claims_of("kubernetes", door.now_s, iss=ISSUERS["oidc"])
    await door.refuses(door.issuer.sign(kubernetes, kid=door.kid("oidc")), "no rule of the trust file")
    as_oidc = claims_of("oidc", door.now_s, iss=ISSUERS["kubernetes"])
    await door.refuses(door.issuer.sign(as_oidc, kid=door.kid("oidc")), "not_projected")
    await door.refuses(door.token("kubernetes"), "id_token comes from an issuer of method oidc", token_type=TYPE_ID)
    await door.refuses(door.token("spiffe-jwt"), "id_token comes from an issuer of method oidc", token_type=TYPE_ID)
    await door.admits(door.token("oidc"), TYPE_ID)


async def test_an_unknown_issuer_is_never_asked(door: Door) -> None:
    mine = door.issuer.url
    before = (door.issuer.fetches(JWKS), door.issuer.fetches(DISCOVERY))
    told = await door.refuses(door.token("oidc", iss=mine), "no issuer of the trust file")
    assert (door.issuer.fetches(JWKS), door.issuer.fetches(DISCOVERY)) == before
    assert mine not in told
    for near in (ISSUERS["oidc"] + "/", ISSUERS["oidc"].upper(), ISSUERS["oidc"] + "#", " " + ISSUERS["oidc"]):
        await door.refuses(door.token("oidc", iss=near), "no issuer of the trust file")


async def test_no_rule_for_this_identity_says_which_would_be_needed(door: Door) -> None:
    await door.refuses(door.token("oidc", sub="repo/acme/other"), 'one would need: subject = "repo/acme/other"')
    await door.refuses(door.token("oidc", repository_id="43"), "no rule of the trust file")
    await door.refuses(door.token("oidc", repository_id=42), "no rule of the trust file")
    await door.refuses(door.token("spiffe-jwt", sub="spiffe://prod.example/agents"), 'need: path = "/agents"')
    bound = claims_of("kubernetes", 0)["kubernetes.io"] | {"namespace": "default"}
    other: dict[str, Any] = {"sub": "system:serviceaccount:default:refunds", "kubernetes.io": bound}
    token = door.token("kubernetes", **other)
    await door.refuses(token, 'need: namespace = "default", service_account = "refunds"')


async def test_service_accounts_that_contradict_themselves(door: Door) -> None:
    attacks: list[tuple[dict[str, Any], str]] = [
        ({"sub": "system:serviceaccount:payments:admin"}, "bad_service_account"),
        ({"kubernetes.io": ...}, "not_projected"),
        ({"kubernetes.io": "payments"}, "not_projected"),
        ({"kubernetes.io": {"namespace": "payments", "serviceaccount": {"name": "refunds", "uid": "u"}}}, "no_pod"),
        ({"kubernetes.io": {"namespace": "payments", "serviceaccount": {"name": "refunds"}}}, "bad_service_account"),
        (
            {"kubernetes.io": {"namespace": "Payments", "serviceaccount": {"name": "refunds", "uid": "u"}}},
            "bad_service",
        ),
        ({"kubernetes.io": {"serviceaccount": {"name": "refunds", "uid": "u"}}}, "bad_service_account"),
        ({"kubernetes.io": {"namespace": "payments", "serviceaccount": [1]}}, "bad_service_account"),
    ]
    for change, reason in attacks:
        await door.refuses(door.token("kubernetes", **change), reason)


async def test_a_token_that_names_another_dpop_key(door: Door) -> None:
    await door.refuses(door.token(cnf={"jkt": DpopKey().jkt}), "cnf.jkt")
    await door.refuses(door.token(cnf={"x5t#S256": door.dpop.jkt}), "bound_otherwise")
    await door.admits(door.token(cnf={"jkt": door.dpop.jkt}))


async def test_a_stolen_token_works_for_the_thief_only_until_it_expires_and_under_his_own_key(door: Door) -> None:
    """What the README says of tokens in files; `single_use` and cnf.jkt are what limits it further."""
    token = door.token("kubernetes", exp=door.now_s + 100)
    thief = Door(door.broker, door.issuer)
    answer = await thief.admits(token)
    claims = json.loads(base64.urlsafe_b64decode(answer["access_token"].split(".")[1] + "=="))
    assert claims["cnf"]["jkt"] == thief.dpop.jkt
    assert answer["expires_in"] <= 100 + 30
    door.before = await door.state()
    door.broker.hand.clock.tick(131_000)
    await door.refuses(token, "expired")


async def test_flood_of_unknown_kids(door: Door) -> None:
    """Whatever a stranger sends, the issuer is asked at most once in ten seconds."""
    await door.admits(door.token("oidc"))
    before = door.issuer.fetches()
    door.before = await door.state()
    mallory: ForgersKey = es256()
    for number in range(60):
        header = {"alg": "ES256", "kid": f"flood-{number}"}
        await door.refuses(mallory.jws(header, claims_of("oidc", door.now_s)), "unknown_key")
    assert door.issuer.fetches() - before <= 1
