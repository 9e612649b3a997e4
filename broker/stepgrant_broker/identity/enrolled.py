"""Identity by enrolled key: a one-use assertion signed by the key that an operator enrolled (RFC 7523, 7523bis).

Rules:

* The sole audience is this broker's issuer. A list, or the token endpoint's URL, is refused: an assertion made for
  another server must not work here, nor one made here elsewhere.
* `typ` is `client-authentication+jwt` or absent; any other token that the same key signed is no assertion.
* It lives at most 5 minutes and counts once. The memory of `jti` is the caller's, until `assertion_dead_at_ms`.
* Tenant and names come from the enrolment; the assertion says only which enrolment is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stepgrant import _jose
from stepgrant._keys import JoseError, verifying_key
from stepgrant.canonical import digest_bytes
from stepgrant_broker.domain.errors import InvalidToken

METHOD: Final = "enrolled_key"
TYPE: Final = "client-authentication+jwt"
MAX_LIFETIME_S: Final = 300
LEEWAY_S: Final = 30
_MAX_JTI_CHARS: Final = 200
_MIN_JTI_CHARS: Final = 16
_MAX_ID_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Attested:
    """What an identity proved. Times in milliseconds since the epoch.

    `evidence_sha256` is the digest of the token that proved it, which itself is kept nowhere. `not_after_ms` ends what
    is based on it; None where the identity itself has no end (an enrolment lasts until it is removed). `jti` is to be
    refused from now until `assertion_dead_at_ms`.
    """

    method: str
    trust_domain: str
    workload_id: str
    evidence_sha256: str
    not_after_ms: int | None
    jti: str
    assertion_dead_at_ms: int


@dataclass(frozen=True, slots=True)
class Assertion:
    """A parsed assertion that nothing is proven of. `workload_id` says only which enrolment to look up."""

    workload_id: str
    _jws: _jose.Jws = field(repr=False)
    _evidence: str = field(repr=False)

    def attest(self, jwk: Mapping[str, str], *, issuer: str, now_ms: int) -> Attested:
        """Verify it with the enrolment's public key.

        Args:
            jwk: the enrolment's key.
            issuer: this broker's issuer, the only audience.
            now_ms: the time.

        Raises:
            InvalidToken: with the check that failed.
        """
        try:
            jti, exp = self._verified(jwk, issuer, now_ms / 1000)
        except JoseError as error:
            raise InvalidToken(f"the assertion is not valid: {error.detail} ({error.reason})") from None
        dead_at_ms = (exp + LEEWAY_S) * 1000
        return Attested(METHOD, issuer, self.workload_id, self._evidence, None, jti, dead_at_ms)

    def _verified(self, jwk: Mapping[str, str], issuer: str, now_s: float) -> tuple[str, int]:
        _jose.check_type(self._jws.header, TYPE, required=False)
        claims = self._jws.verified_claims(verifying_key(jwk))
        if claims.get("aud") != issuer:
            raise JoseError("wrong_audience", "aud is not exactly this broker's issuer")
        exp = _jose.check_times(claims, now_s=now_s, leeway_s=LEEWAY_S, max_lifetime_s=MAX_LIFETIME_S)
        if claims.get("iss") != self.workload_id or claims.get("sub") != self.workload_id:
            raise JoseError("wrong_subject", "iss and sub are not both the workload")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not _MIN_JTI_CHARS <= len(jti) <= _MAX_JTI_CHARS:
            raise JoseError("bad_jti", f"jti is not text of {_MIN_JTI_CHARS} to {_MAX_JTI_CHARS} characters")
        return jti, exp


def read_assertion(token: str) -> Assertion:
    """Take an assertion apart, to look up the enrolment that it names. Raises `InvalidToken`."""
    try:
        jws = _jose.parse(token)
        workload_id = jws.unverified_claims().get("sub")
    except JoseError as error:
        raise InvalidToken(f"the subject token is no assertion: {error.detail} ({error.reason})") from None
    if not isinstance(workload_id, str) or not 0 < len(workload_id) <= _MAX_ID_CHARS:
        raise InvalidToken("the subject token is no assertion: sub does not name a workload (wrong_subject)")
    return Assertion(workload_id, jws, digest_bytes(token.encode("ascii", "replace")))
