"""The issuer `jwt`: the exact token, and that nothing wider than ordered gets through its check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from changing import replace
from conformance.issuer.adapters import NOW, ORDER
from forging import ForgersKey, es256
from stepgrant import canonical
from stepgrant._jose import parse
from stepgrant._keys import verifying_key
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import GrantOrder, Minted, PublicKey, Signature
from stepgrant_broker.issuers.jwt import JwtIssuer
from stepgrant_broker.signing.local import LocalSigner

URL = "https://broker.example"
KEY = es256()
CLAIMS: dict[str, Any] = {
    "iss": URL,
    "aud": "https://tool.example",
    "tenant": "acme",
    "sub": "workload:acme/agent",
    "client_id": "wkl_01",
    "act": {"sub": "workload:acme/agent", "instance": "jkt-holder"},
    "iat": 1_800_000_000,
    "nbf": 1_800_000_000,
    "exp": 1_800_000_060,
    "jti": "grn_01",
    "txn": "run_01.charge.2",
    "cnf": {"jkt": "jkt-holder"},
    "authorization_details": [
        {
            "type": "stepgrant_action",
            "locations": ["https://tool.example"],
            "actions": ["refund.create"],
            "identifier": "order/991",
            "run_id": "run_01",
            "step": "charge",
            "attempt": 2,
            "epoch": 9,
            "args_digest": "sha-256:" + "a" * 43,
            "effect": "once",
            "idempotency_key": "sg-1",
            "redeem": "required",
            "max_uses": 1,
            "policy": {"revision": "3:sha-256:x", "decision_id": "dec_01"},
            "approval": {"id": "apr_01"},
        }
    ],
}


class Turning:
    """A signer whose key is replaced after each of these many questions for it."""

    def __init__(self, *keys: ForgersKey) -> None:
        self.keys = list(keys)
        self.signed = 0

    async def public_keys(self, purpose: str) -> tuple[PublicKey, ...]:
        assert purpose == "grants"
        return tuple(PublicKey(str(id(key)), key.alg, key.jwk) for key in self.keys[:1])

    async def sign(self, purpose: str, data: bytes) -> Signature:
        assert purpose == "grants"
        self.signed += 1
        if len(self.keys) > 1:
            self.keys.pop(0)
        return Signature(str(id(self.keys[0])), self.keys[0].alg, self.keys[0].sign(data))


async def token(order: GrantOrder, signer: Turning) -> str:
    return (await JwtIssuer(signer, URL).mint(order, None)).fields["token"]


async def test_the_token_is_exactly_the_order(tmp_path: Path) -> None:
    signer = LocalSigner.open(tmp_path / "keys", create=True)
    minted = await JwtIssuer(signer, URL).mint(ORDER, None)
    jws = parse(minted.fields["token"])
    assert jws.unverified_claims() == CLAIMS
    assert {name: jws.header[name] for name in ("typ", "alg")} == {"typ": "at+jwt", "alg": "ES256"}
    assert (minted.kind, minted.expires_at, minted.hosts) == ("jwt", NOW + 60_000, ("https://tool.example",))


async def test_the_signature_is_by_the_published_key_that_the_header_names() -> None:
    jws = parse(await token(ORDER, Turning(KEY)))
    assert jws.header["kid"] == str(id(KEY))
    assert jws.verified_claims(verifying_key(KEY.jwk)) == CLAIMS


async def test_what_does_not_apply_is_left_out() -> None:
    order = replace(ORDER, resource=None, approval_id=None)
    details = parse(await token(order, Turning(KEY))).unverified_claims()["authorization_details"]
    detail = CLAIMS["authorization_details"][0]
    assert details == [{name: value for name, value in detail.items() if name not in {"identifier", "approval"}}]


async def test_a_principal_is_the_subject_for_whom_the_agent_acts() -> None:
    claims = parse(await token(replace(ORDER, principal="user:ann"), Turning(KEY))).unverified_claims()
    assert claims["sub"] == "user:ann"
    assert claims["act"] == {"sub": "workload:acme/agent", "instance": "jkt-holder"}


async def test_parts_of_a_second_never_make_a_token_longer() -> None:
    order = replace(ORDER, issued_at=NOW + 999, expires_at=NOW + 60_999)
    issuer = JwtIssuer(Turning(KEY), URL)
    minted = await issuer.mint(order, None)
    issuer.check(order, minted)
    assert minted.expires_at == NOW + 60_000


@pytest.mark.parametrize(
    "changed",
    [{"expires_at": ORDER.issued_at}, {"expires_at": ORDER.issued_at + 300_001}, {"audience": ""}],
    ids=count(),
)
async def test_an_order_that_no_token_may_fulfil_is_not_even_signed(changed: dict[str, Any]) -> None:
    signer = Turning(KEY)
    with pytest.raises(IssuerRefused):
        await JwtIssuer(signer, URL).mint(replace(ORDER, **changed), None)
    assert signer.signed == 0


async def test_a_key_that_is_rotated_meanwhile_signs_a_token_that_names_it() -> None:
    old, new = es256(), es256()
    jws = parse(await token(ORDER, Turning(old, new)))
    assert jws.header["kid"] == str(id(new))
    assert jws.verified_claims(verifying_key(new.jwk)) == CLAIMS


async def test_a_key_that_never_settles_gives_nothing() -> None:
    with pytest.raises(IssuerUnavailable, match="changes too fast"):
        await token(ORDER, Turning(es256(), es256(), es256()))


def forged(claims: Mapping[str, Any] | None = None, **header: Any) -> Minted:  # noqa: ANN401 - members of the header
    said = canonical.dumps(claims if claims is not None else CLAIMS)
    text = KEY.jws({"typ": "at+jwt", "alg": "ES256", "kid": "k", **header}, said)
    return Minted("jwt", {"token": text}, NOW + 60_000, hosts=("https://tool.example",))


def check(minted: Minted, order: GrantOrder = ORDER) -> None:
    JwtIssuer(Turning(KEY), URL).check(order, minted)


def test_the_right_token_passes_the_check() -> None:
    check(forged())


def test_what_is_written_in_another_way_is_refused() -> None:
    said = canonical.dumps(CLAIMS)
    for text in (
        said.replace(b'"epoch":9', b'"epoch":9.0'),
        said.replace(b'"max_uses":1', b'"max_uses":true'),
        b" " + said,
    ):
        assert text != said
        minted = replace(forged(), fields={"token": KEY.jws({"typ": "at+jwt", "alg": "ES256", "kid": "k"}, text)})
        with pytest.raises(IssuerRefused, match="written in another way"):
            check(minted)


@pytest.mark.parametrize("name", sorted(set(CLAIMS) - {"authorization_details"}))
def test_a_claim_that_is_missing_or_another_is_refused(name: str) -> None:
    for claims in ({**CLAIMS, name: "other"}, {key: value for key, value in CLAIMS.items() if key != name}):
        with pytest.raises(IssuerRefused, match=f"differs from the order in {name}"):
            check(forged(claims))


@pytest.mark.parametrize("name", sorted(CLAIMS["authorization_details"][0]))
def test_a_detail_that_is_missing_or_another_is_refused(name: str) -> None:
    detail = CLAIMS["authorization_details"][0]
    for changed in ({**detail, name: "other"}, {key: value for key, value in detail.items() if key != name}):
        with pytest.raises(IssuerRefused, match="not for exactly the ordered action"):
            check(forged({**CLAIMS, "authorization_details": [changed]}))


WIDER: list[Callable[[dict[str, Any]], object]] = [
    lambda c: c.update(aud=["https://tool.example", "https://other.example"]),
    lambda c: c.update(scope="admin"),
    lambda c: c.update(tenant=["acme", "globex"]),
    lambda c: c.update(exp=c["exp"] + 1),
    lambda c: c.update(nbf=c["nbf"] - 60),
    lambda c: c["cnf"].update(jkt="another"),
    lambda c: c["authorization_details"].append(c["authorization_details"][0]),
    lambda c: c.update(authorization_details=[]),
    lambda c: c.update(authorization_details={}),
    lambda c: c["authorization_details"][0]["actions"].append("refund.approve"),
    lambda c: c["authorization_details"][0]["locations"].append("https://other.example"),
    lambda c: c["authorization_details"][0].update(max_uses=2),
    lambda c: c["authorization_details"][0].update(redeem="optional"),
    lambda c: c["authorization_details"][0].update(privileges=["root"]),
    lambda c: c["authorization_details"][0].update(epoch=10),
]


@pytest.mark.parametrize("widen", WIDER, ids=count())
def test_a_wider_token_is_refused(widen: Callable[[dict[str, Any]], object]) -> None:
    claims = parse(forged().fields["token"]).unverified_claims()
    widen(claims)
    with pytest.raises(IssuerRefused):
        check(forged(claims))


@pytest.mark.parametrize("header", [{"typ": "JWT"}, {"typ": None}, {"alg": "none"}, {"alg": "HS256"}], ids=count())
def test_a_token_of_another_kind_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(IssuerRefused, match="not an access token"):
        check(forged(**header))


def test_a_token_without_a_key_id_is_refused() -> None:
    text = KEY.jws({"typ": "at+jwt", "alg": "ES256"}, CLAIMS)
    with pytest.raises(IssuerRefused, match="not an access token"):
        check(replace(forged(), fields={"token": text}))


@pytest.mark.parametrize("text", ["", "x", "a.b.c"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(IssuerRefused, match="cannot be read"):
        check(replace(forged(), fields={"token": text}))


def test_what_is_said_beside_the_token_must_be_what_is_in_it() -> None:
    for changed in (
        replace(forged(), expires_at=NOW + 61_000),
        replace(forged(), hosts=("https://tool.example", "https://other.example")),
    ):
        with pytest.raises(IssuerRefused, match="not what is in it"):
            check(changed)


def test_a_token_ends_with_its_order() -> None:
    """`exp` in whole seconds after an order's end in the same second is the earlier one."""
    with pytest.raises(IssuerRefused, match="exp"):
        check(forged(), replace(ORDER, expires_at=ORDER.expires_at - 1))


async def test_without_a_key_nothing_is_signed() -> None:
    with pytest.raises(IssuerUnavailable, match="no key"):
        await token(ORDER, Turning())
