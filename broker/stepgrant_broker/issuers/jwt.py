"""Issuer `jwt`: the grant itself as a token, signed by the broker's own key (RFC 9068, RFC 9396; `protocol.md` §3).

Rules:
* One token is for one action of one attempt: one audience, one `stepgrant_action` detail, the holder's key in `cnf`.
* The token says nothing that was not ordered. `check` reads the signed bytes back and compares them with the order by a
  list of its own, so that a fault in the making cannot widen a token.
* No arguments and no secrets are in a token, only the action's digest.
* The token names its tenant. All tenants share the issuer's URL and keys, and a policy may name any audience: without
  that claim a server that verifies offline could not tell its own tenant's grants from those of another.
* The signature is not verified again: a token with a wrong one is refused by every resource server, which grants
  nothing, and the check would double the cost of each grant.
* Nothing outside the broker can be revoked here. What is recorded decides: redeem refuses a revoked grant, and a token
  that needs no redeem dies at its `exp` (`revocation: expiry`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from stepgrant import canonical
from stepgrant._jose import encode_segment, parse
from stepgrant._keys import JoseError
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import Minted, Revocation

if TYPE_CHECKING:
    from stepgrant.canonical import JsonValue
    from stepgrant_broker.domain.ports import GrantOrder, PublicKey, Signature, Signer

PURPOSE: Final = "grants"
TYPE: Final = "at+jwt"
DETAIL: Final = "stepgrant_action"
ALGORITHMS: Final = frozenset({"ES256", "EdDSA"})
MAX_TTL_S: Final = 300
SECOND_MS: Final = 1000

_encode: Final = msgspec.json.Encoder(order="sorted").encode


class JwtIssuer:
    """Signs grants as access tokens of `issuer_url` with the signer's purpose `grants`."""

    name: str = "jwt"
    revocation: Revocation = Revocation.EXPIRY
    outside: bool = False
    max_ttl_s: int = MAX_TTL_S
    tokens_of_ours: bool = True

    def __init__(self, signer: Signer, issuer_url: str) -> None:
        self._signer = signer
        self._issuer_url = issuer_url

    async def intend(self, order: GrantOrder) -> str | None:
        """Nothing outside is prepared."""
        return None

    async def mint(self, order: GrantOrder, handle: str | None) -> Minted:
        """The signed token. Raises `IssuerRefused` for an order beyond the maximum, `SignerUnavailable`."""
        if not 0 < order.expires_at - order.issued_at <= self.max_ttl_s * SECOND_MS or not order.audience:
            raise IssuerRefused(f"a token has one audience and lives at most {self.max_ttl_s} s")
        key = await self._newest_key()
        signing_input = f"{_header(key.alg, key.kid)}.{_segment(self._claims(order))}"
        signature = await self._signer.sign(PURPOSE, signing_input.encode("ascii"))
        if (signature.kid, signature.alg) != (key.kid, key.alg):
            # Rotated between the two calls: the header would name another key than the one that signed.
            signing_input, signature = await self._sign_again(order, signature)
        token = f"{signing_input}.{canonical.b64u(signature.value)}"
        return Minted("jwt", {"token": token}, _seconds(order.expires_at) * SECOND_MS, hosts=(order.audience,))

    async def _newest_key(self) -> PublicKey:
        for key in await self._signer.public_keys(PURPOSE):
            return key
        raise IssuerUnavailable("there is no key to sign grants with")

    async def _sign_again(self, order: GrantOrder, seen: Signature) -> tuple[str, Signature]:
        signing_input = f"{_header(seen.alg, seen.kid)}.{_segment(self._claims(order))}"
        signature = await self._signer.sign(PURPOSE, signing_input.encode("ascii"))
        if (signature.kid, signature.alg) != (seen.kid, seen.alg):
            raise IssuerUnavailable("the signing key changes too fast; try again", retry_after_ms=200)
        return signing_input, signature

    def _claims(self, order: GrantOrder) -> dict[str, JsonValue]:
        issued = _seconds(order.issued_at)
        return {
            "iss": self._issuer_url,
            "aud": order.audience,
            "tenant": order.tenant,
            # With a principal, the principal is the subject and the agent acts for it (RFC 8693 §4.1).
            "sub": order.principal or order.subject,
            "client_id": order.client_id,
            "act": {"sub": order.subject, "instance": order.instance},
            "iat": issued,
            "nbf": issued,
            "exp": _seconds(order.expires_at),
            "jti": order.jti,
            "txn": f"{order.run}.{order.step}.{order.attempt}",
            "cnf": {"jkt": order.jkt},
            "authorization_details": [_detail(order)],
        }

    def check(self, order: GrantOrder, minted: Minted) -> None:
        """Compare what was signed with what was ordered, claim by claim. Raises `IssuerRefused`."""
        token = minted.fields.get("token", "")
        ordered, detail = _ordered_claims(order, self._issuer_url), _ordered_detail(order)
        try:
            jws = parse(token)
            # Bytes that say what was ordered say nothing else; others are read, for the difference.
            same = jws.payload == _encode({**ordered, "authorization_details": [detail]})
            claims = {} if same else jws.unverified_claims()
        except JoseError as error:
            raise IssuerRefused(f"the token that was made cannot be read ({error.reason})") from None
        if jws.header.get("typ") != TYPE or jws.header.get("alg") not in ALGORITHMS or "kid" not in jws.header:
            raise IssuerRefused("the token that was made is not an access token with a key id")
        if not same:
            _refuse_difference(claims, ordered, detail)
        if minted.fields.keys() != {"token"}:
            raise IssuerRefused("what was made carries more than a token")
        if minted.expires_at != order.expires_at // 1000 * 1000 or minted.hosts != (order.audience,):
            raise IssuerRefused("what goes with the token is not what is in it")

    async def revoke(self, *, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        """False: only the record, or time, ends a token."""
        return False


@lru_cache(maxsize=16)
def _header(alg: str, kid: str) -> str:
    return encode_segment({"alg": alg, "kid": kid, "typ": TYPE})


def _segment(claims: Mapping[str, JsonValue]) -> str:
    """Claims as a segment. `check` reads them back strictly, so nothing has to be looked at before it is written."""
    return canonical.b64u(_encode(claims))


def _seconds(ms: int) -> int:
    return ms // SECOND_MS


def _detail(order: GrantOrder) -> dict[str, JsonValue]:
    detail: dict[str, JsonValue] = {
        "type": DETAIL,
        "locations": [order.audience],
        "actions": [order.tool],
        "run_id": order.run,
        "step": order.step,
        "attempt": order.attempt,
        "epoch": order.epoch,
        "args_digest": order.args_digest,
        "effect": order.effect,
        "idempotency_key": order.idempotency_key,
        "redeem": order.redeem,
        "max_uses": 1,
        "policy": {"revision": order.policy_revision, "decision_id": order.decision_id},
    }
    if order.resource is not None:
        detail["identifier"] = order.resource
    if order.approval_id is not None:
        detail["approval"] = {"id": order.approval_id}
    return detail


# What `check` expects. It shares nothing with the making above, on purpose.


def _ordered_claims(order: GrantOrder, issuer_url: str) -> Mapping[str, object]:
    return {
        "act": {"instance": order.instance, "sub": order.subject},
        "aud": order.audience,
        "client_id": order.client_id,
        "cnf": {"jkt": order.jkt},
        "exp": order.expires_at // 1000,
        "iat": order.issued_at // 1000,
        "iss": issuer_url,
        "jti": order.jti,
        "nbf": order.issued_at // 1000,
        "sub": order.subject if order.principal is None else order.principal,
        "tenant": order.tenant,
        "txn": ".".join((order.run, order.step, str(order.attempt))),
    }


def _ordered_detail(order: GrantOrder) -> Mapping[str, object]:
    optional = {
        "approval": None if order.approval_id is None else {"id": order.approval_id},
        "identifier": order.resource,
    }
    return {
        "actions": [order.tool],
        "args_digest": order.args_digest,
        "attempt": order.attempt,
        "effect": order.effect,
        "epoch": order.epoch,
        "idempotency_key": order.idempotency_key,
        "locations": [order.audience],
        "max_uses": 1,
        "policy": {"decision_id": order.decision_id, "revision": order.policy_revision},
        "redeem": order.redeem,
        "run_id": order.run,
        "step": order.step,
        "type": "stepgrant_action",
        **{name: value for name, value in optional.items() if value is not None},
    }


def _refuse_difference(claims: dict[str, Any], ordered: Mapping[str, object], detail: Mapping[str, object]) -> NoReturn:
    """Raises `IssuerRefused`: where no value differs, they are written in another way, such as 1 as 1.0 or true."""
    if claims.pop("authorization_details", None) != [detail]:
        raise IssuerRefused("the token that was made is not for exactly the ordered action")
    for name in sorted(claims.keys() | ordered.keys()):
        if claims.get(name) != ordered.get(name):
            raise IssuerRefused(f"the token that was made differs from the order in {name}")
    raise IssuerRefused("the token that was made is written in another way than ordered")
