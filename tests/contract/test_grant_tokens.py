"""The broker's issuer and the resource server's library agree on every word of a grant, and on nothing more."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from changing import replace
from stepgrant import canonical, errors
from stepgrant._dpop import DpopKey
from stepgrant.verify import Action, GrantVerifier, JwksSource, Presented, Redeemed, Redemption
from stepgrant_broker.config import Settings
from stepgrant_broker.domain.ports import GrantOrder
from stepgrant_broker.issuers.jwt import JwtIssuer
from stepgrant_broker.signing.local import LocalSigner

BROKER = "https://broker.example"
TOOL = "https://tool.example"
ACTION = Action("refund.create", "order/991", {"amount": 100})
HOLDER = DpopKey()


class Consents:
    """Consents to every redemption, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[Redemption] = []

    def redeem_sync(self, redemption: Redemption) -> Redeemed:
        self.asked.append(redemption)
        return Redeemed(int(time.time() * 1000) + 10_000)

    async def redeem(self, redemption: Redemption) -> Redeemed:
        return self.redeem_sync(redemption)


def order() -> GrantOrder:
    now = int(time.time()) * 1000
    return GrantOrder(
        tenant="acme",
        run="run_1",
        step="charge",
        attempt=2,
        epoch=9,
        jti="grn_1",
        subject="workload:acme/refunds",
        client_id="wkl_1",
        instance="i-1",
        jkt=HOLDER.jkt,
        audience=TOOL,
        tool=ACTION.tool,
        resource=ACTION.resource,
        args_digest=canonical.action_digest(ACTION.tool, ACTION.resource, ACTION.args),
        effect="once",
        idempotency_key="sg-1",
        redeem="required",
        issued_at=now,
        expires_at=now + 60_000,
        policy_revision="3:abc",
        decision_id="dec_1",
        approval_id=None,
        principal=None,
        params={},
    )


ORDERS: dict[str, Callable[[], GrantOrder]] = {
    "plain": order,
    "approved": lambda: replace(order(), approval_id="apr_1"),
    "for a person": lambda: replace(order(), principal="user:ann"),
    "unredeemed": lambda: replace(order(), redeem="optional", effect="read"),
    "the longest": lambda: replace(order(), expires_at=order().issued_at + 300_000),
}


@pytest.mark.parametrize("name", ORDERS)
async def test_what_the_issuer_mints_the_verifier_accepts_for_that_action_only(tmp_path: Path, name: str) -> None:
    signer = LocalSigner.open(tmp_path / "keys", create=True)
    ordered = ORDERS[name]()
    minted = await JwtIssuer(signer, BROKER).mint(ordered, None)
    token = minted.fields["token"]
    redeemer = Consents()
    keys: dict[str, canonical.JsonValue] = {"keys": [dict(key.jwk) for key in await signer.public_keys("grants")]}
    verifier = GrantVerifier(issuer=BROKER, audience=TOOL, tenant="acme", keys=keys, redeemer=redeemer)

    def present() -> Presented:
        return Presented("POST", TOOL, token, HOLDER.proof("POST", TOOL, token=token))

    other = GrantVerifier(issuer=BROKER, audience=TOOL, tenant="globex", keys=keys, redeemer=redeemer)
    with pytest.raises(errors.InvalidToken) as foreign:
        await other.verify(present(), ACTION)
    assert (foreign.value.reason, redeemer.asked) == ("wrong_tenant", [])
    with pytest.raises(errors.DigestMismatch):
        await verifier.verify(present(), Action(ACTION.tool, ACTION.resource, {"amount": 101}))
    grant = await verifier.verify(present(), ACTION)

    assert (grant.run_id, grant.step, grant.attempt, grant.epoch, grant.jti) == ("run_1", "charge", 2, 9, "grn_1")
    assert (grant.tool, grant.resource, grant.effect) == (ordered.tool, ordered.resource, ordered.effect)
    assert grant.idempotency_key == "sg-1"
    assert grant.subject == (ordered.principal or ordered.subject)
    assert grant.redeemed is (ordered.redeem == "required")
    assert len(redeemer.asked) == (1 if grant.redeemed else 0)


@pytest.mark.parametrize("purpose", ["access", "heads"])
async def test_a_token_by_another_key_of_the_broker_is_no_grant(tmp_path: Path, purpose: str) -> None:
    signer = LocalSigner.open(tmp_path / "keys", create=True)
    minted = await JwtIssuer(signer, BROKER).mint(order(), None)
    token = minted.fields["token"]
    keys: dict[str, canonical.JsonValue] = {"keys": [dict(key.jwk) for key in await signer.public_keys(purpose)]}
    verifier = GrantVerifier(issuer=BROKER, audience=TOOL, tenant="acme", keys=keys, redeemer=Consents())
    with pytest.raises(errors.InvalidToken) as caught:
        await verifier.verify(Presented("POST", TOOL, token, HOLDER.proof("POST", TOOL, token=token)), ACTION)

    assert caught.value.reason == "unknown_key"


def test_who_names_no_tenant_anywhere_has_one_and_the_same() -> None:
    """A broker with its default settings, and a verifier with its own."""
    keys = JwksSource(f"{BROKER}/.well-known/jwks.json")
    assert GrantVerifier(issuer=BROKER, audience=TOOL, keys=keys).tenant == Settings.model_fields["tenant"].default
