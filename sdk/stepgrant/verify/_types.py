"""What verification takes and gives: the request as presented, the action about to be done, the verified grant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stepgrant._verification_errors import InvalidProof, InvalidToken
from stepgrant.canonical import JsonValue

_SCHEME = "dpop"


@dataclass(frozen=True, slots=True)
class Action:
    """What the server is about to do, as its own code read it from the request: never what a header says."""

    tool: str
    resource: str | None
    args: JsonValue


@dataclass(frozen=True, slots=True)
class Presented:
    """Token and proof of one request. `url` is the configured public URL plus path, never made from a header."""

    method: str
    url: str
    token: str = field(repr=False)
    proof: str = field(repr=False)

    @classmethod
    def of(cls, method: str, url: str, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Presented:
        """From the request's headers, of which there may be several of one name.

        Raises:
            InvalidToken: not exactly one `Authorization: DPoP <token>`.
            InvalidProof: not exactly one `DPoP` header (RFC 9449 §4.3, check 1).
        """
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        authorizations = [value for name, value in pairs if name.lower() == "authorization"]
        proofs = [value for name, value in pairs if name.lower() == "dpop"]
        if len(authorizations) != 1:
            reason = "many_tokens" if authorizations else "missing"
            raise InvalidToken("send exactly one Authorization header", reason=reason)
        scheme, _, token = authorizations[0].strip().partition(" ")
        if scheme.lower() != _SCHEME:
            # A DPoP-bound token sent as a bearer is what a thief can do with it (RFC 9449 §7.2).
            raise InvalidToken("the token must be sent as Authorization: DPoP", reason="not_dpop")
        if len(proofs) != 1:
            reason = "many_proofs" if proofs else "missing"
            raise InvalidProof("send exactly one DPoP header", reason=reason)
        return cls(method, url, token.strip(), proofs[0].strip())


@dataclass(frozen=True, slots=True)
class VerifiedGrant:
    """A grant that was checked against the action about to be done. Nothing in it is secret.

    `act_before` is in milliseconds of this machine's clock: no effect may begin later. Hand `idempotency_key` on to
    whatever does the work. `claims` are all claims of the token.
    """

    run_id: str
    step: str
    attempt: int
    epoch: int
    jti: str
    tool: str
    resource: str | None
    effect: str
    idempotency_key: str | None
    act_before: int
    subject: str
    redeemed: bool
    claims: Mapping[str, JsonValue] = field(repr=False)
