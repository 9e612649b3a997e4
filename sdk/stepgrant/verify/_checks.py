"""The checks of a grant token that need no key, clock, memory or socket of their own (`protocol.md` §3).

Rules: each check refuses with its own reason; the claims' shape is closed where the protocol closes it (a member of the
action that this library does not know could be a restriction that it would not keep, so it is refused).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from stepgrant import _jose
from stepgrant._keys import JoseError, VerifyingKey
from stepgrant._verification_errors import DigestMismatch, InvalidRequest, InvalidToken
from stepgrant.canonical import CanonicalError, JsonValue, action_digest
from stepgrant.verify._types import Action

TYPE: Final = "at+jwt"
ALGORITHMS: Final = frozenset({"ES256", "EdDSA"})
MAX_LIFETIME_S: Final = 300

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which decision allowed the action."""

    revision: str
    decision_id: str


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which person's answer it rests on."""

    id: str


class Detail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one `authorization_details` element (RFC 9396) of a grant."""

    type: Literal["stepgrant_action"]
    locations: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=16)]
    actions: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=1)]
    run_id: _Text
    step: _Text
    attempt: _Positive
    epoch: _Positive
    args_digest: str
    effect: Literal["read", "idempotent", "once"]
    redeem: Literal["required", "optional"]
    max_uses: _Positive
    policy: Policy
    identifier: str | None = None
    idempotency_key: str | None = None
    approval: Approval | None = None


class Confirmation(msgspec.Struct, frozen=True):
    """The key that the token is bound to (RFC 9449 §6.1)."""

    jkt: _Text


class Claims(msgspec.Struct, frozen=True):
    """The claims that verification needs; further claims of RFC 9068 tokens are left alone."""

    sub: _Text
    client_id: _Text
    iat: int
    nbf: int
    jti: _Text
    cnf: Confirmation


_T = TypeVar("_T")


def parse(token: str) -> _jose.Jws:
    """Take the token apart and check its header. The key is to be found by `kid`, then `verify` goes on."""
    try:
        jws = _jose.parse(token)
        _jose.check_type(jws.header, TYPE)
    except JoseError as error:
        raise InvalidToken(error.detail, reason=error.reason) from None
    if jws.header["alg"] not in ALGORITHMS:
        raise InvalidToken("alg is neither ES256 nor EdDSA", reason="bad_algorithm")
    return jws


def key_id(jws: _jose.Jws) -> str:
    """The `kid` of the header."""
    kid = jws.header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise InvalidToken("the header has no kid", reason="unknown_key")
    return kid


def verify(
    jws: _jose.Jws, key: VerifyingKey, *, issuer: str, tenant: str, audience: str, now_s: float, leeway_s: float
) -> tuple[dict[str, JsonValue], Claims, Detail, int]:
    """Signature, issuer, audience, tenant, times, shape. Returns all claims, the known ones, the detail, and `exp`."""
    try:
        raw = jws.verified_claims(key)
        if raw.get("iss") != issuer:
            raise InvalidToken("iss is not the issuer that is trusted here", reason="wrong_issuer")
        if raw.get("aud") != audience:
            # One string, not a list that holds it: a token for two servers could be carried from one to the other.
            raise InvalidToken("aud is not exactly this server", reason="wrong_audience")
        if "tenant" not in raw:
            raise InvalidToken("the grant names no tenant: the broker is older than this library", reason="no_tenant")
        if raw["tenant"] != tenant:
            # Tenants share the broker's keys, and policy may name this server's audience for another one's agents.
            raise InvalidToken("the grant is of another tenant than is served here", reason="wrong_tenant")
        exp = _jose.check_times(raw, now_s=now_s, leeway_s=leeway_s, max_lifetime_s=MAX_LIFETIME_S)
    except JoseError as error:
        raise InvalidToken(error.detail, reason=error.reason) from None
    if not isinstance(raw.get("cnf"), dict):
        raise InvalidToken("the token is not bound to a key", reason="not_bound")
    claims = _convert(raw, Claims, "malformed")
    return raw, claims, _detail(raw), exp


def _detail(raw: Mapping[str, JsonValue]) -> Detail:
    details = raw.get("authorization_details")
    if not isinstance(details, list) or len(details) != 1:
        raise InvalidToken("there is not exactly one authorization detail", reason="detail_count")
    return _convert(details[0], Detail, "detail_shape")


def _convert(value: object, kind: type[_T], reason: str) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidToken(f"the token's claims are not as they must be: {error}", reason=reason) from None


def check_action(detail: Detail, action: Action, locations: frozenset[str]) -> None:
    """What is about to be done equals what was granted: where, which tool, on what, with which arguments."""
    if not locations.issuperset(detail.locations):
        raise DigestMismatch("the grant is for another location", reason="wrong_location")
    if detail.actions != (action.tool,):
        raise DigestMismatch("the grant is for another tool", reason="wrong_tool")
    if detail.identifier != action.resource:
        raise DigestMismatch("the grant is for another resource", reason="wrong_resource")
    try:
        digest = action_digest(action.tool, action.resource, action.args)
    except CanonicalError as error:
        raise InvalidRequest(f"the request's arguments have no digest: {error}", reason=error.code) from None
    if not hmac.compare_digest(digest.encode(), detail.args_digest.encode()):
        raise DigestMismatch("the grant is for other arguments", reason="wrong_arguments")
