"""Grants as attackers make and present them: true in every word but the one that a test changes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from forging import ForgersKey, es256
from stepgrant import canonical, errors
from stepgrant._dpop import DpopKey
from stepgrant.verify import Action, GrantVerifier, Memory, Presented, Redeemed, Redemption, VerifiedGrant

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
    "tenant": "default",
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


def verifier(redeemer: Redeems, memory: Memory | None = None) -> GrantVerifier:
    keys: dict[str, canonical.JsonValue] = {"keys": [{**ISSUER.jwk, "kid": "k1"}]}
    return GrantVerifier(issuer=BROKER, audience=TOOL, keys=keys, redeemer=redeemer, memory=memory, clock=lambda: NOW)


def attempt(presented: Presented, action: Action = ACTION) -> tuple[VerifiedGrant, list[Redemption]]:
    redeemer = Redeems()
    return verifier(redeemer).verify_sync(presented, action), redeemer.asked


def refused(presented: Presented, action: Action = ACTION) -> tuple[str, str]:
    """Code and reason of the refusal; nothing may have been redeemed."""
    redeemer = Redeems()
    with pytest.raises(errors.VerificationError) as caught:
        verifier(redeemer).verify_sync(presented, action)
    assert redeemer.asked == []
    return caught.value.code, caught.value.reason
