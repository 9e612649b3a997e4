"""Identity by enrolled key: a one-use assertion signed by the key that an operator enrolled (RFC 7523, 7523bis).

Rules:

* The sole audience is this broker's issuer. A list, or the token endpoint's URL, is refused: an assertion made for
  another server must not work here, nor one made here elsewhere.
* `typ` is `client-authentication+jwt` or absent; any other token that the same key signed is no assertion.
* It lives at most 5 minutes and counts once. The memory of `jti` is the caller's, until `assertion_dead_at_ms`.
* It names the DPoP key that it is exchanged for (`cnf.jkt`, RFC 7800): a copy is worthless with another key.
* Tenant and names come from the enrolment; the assertion says only which enrolment is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from stepgrant import _jose
from stepgrant._keys import JoseError, verifying_key
from stepgrant.canonical import digest_bytes
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.domain.ports import Attested
from stepgrant_broker.domain.writes import Workload

METHOD: Final = "enrolled_key"
TYPE: Final = "client-authentication+jwt"
MAX_LIFETIME_S: Final = 300
LEEWAY_S: Final = 30
_MAX_JTI_CHARS: Final = 200
_MIN_JTI_CHARS: Final = 16
_MAX_ID_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Proven:
    """What an assertion proved. `evidence` is its digest; `jti` is to be refused until `dead_at` (ms)."""

    workload_id: str
    evidence: str
    jti: str
    dead_at: int
    jkt: str | None


@dataclass(frozen=True, slots=True)
class Assertion:
    """A parsed assertion that nothing is proven of. `workload_id` says only which enrolment to look up."""

    workload_id: str
    _jws: _jose.Jws = field(repr=False)
    _evidence: str = field(repr=False)

    def verify(self, jwk: Mapping[str, str], *, issuer: str, now_ms: int) -> Proven:
        """Verify it with the enrolment's public key.

        Args:
            jwk: the enrolment's key.
            issuer: this broker's issuer, the only audience.
            now_ms: the time.

        Raises:
            InvalidToken: with the check that failed.
        """
        try:
            jti, exp, jkt = self._verified(jwk, issuer, now_ms / 1000)
        except JoseError as error:
            raise InvalidToken(f"the assertion is not valid: {error.detail} ({error.reason})") from None
        return Proven(self.workload_id, self._evidence, jti, (exp + LEEWAY_S) * 1000, jkt)

    def _verified(self, jwk: Mapping[str, str], issuer: str, now_s: float) -> tuple[str, int, str | None]:
        _jose.check_type(self._jws.header, TYPE, required=False)
        claims = self._jws.verified_claims(verifying_key(jwk))
        if claims.get("aud") != issuer:
            raise JoseError("wrong_audience", "aud is not exactly this broker's issuer")
        exp = _jose.check_times(claims, now_s=now_s, leeway_s=LEEWAY_S, max_lifetime_s=MAX_LIFETIME_S)
        if claims.get("iss") != self.workload_id or claims.get("sub") != self.workload_id:
            raise JoseError("wrong_subject", "iss and sub are not both the workload")
        jti, cnf = claims.get("jti"), claims.get("cnf")
        if not isinstance(jti, str) or not _MIN_JTI_CHARS <= len(jti) <= _MAX_JTI_CHARS:
            raise JoseError("bad_jti", f"jti is not text of {_MIN_JTI_CHARS} to {_MAX_JTI_CHARS} characters")
        jkt = cnf.get("jkt") if isinstance(cnf, dict) else None
        return jti, exp, jkt if isinstance(jkt, str) else None


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


class Enrolments(Protocol):
    """Where enrolments are looked up; the store's `Reads` is one."""

    async def workload(self, workload: str) -> Workload | None:
        """An enrolment by its id, whatever its tenant."""
        ...


class EnrolledIdentity:
    """The port `Identity` over enrolled keys.

    Args:
        enrolments: all of them.
        issuer: this broker's issuer, the only audience.
    """

    def __init__(self, enrolments: Enrolments, issuer: str) -> None:
        self._enrolments = enrolments
        self._issuer = issuer

    async def attest(self, token: str, now: int) -> Attested:
        """As `Identity`. An assertion must name the DPoP key that it is exchanged for."""
        assertion = read_assertion(token)
        workload = await self._enrolments.workload(assertion.workload_id)
        if workload is None or workload.removed_at is not None or workload.kind != METHOD:
            raise InvalidToken("the workload is not enrolled; `stepgrant workload enroll` enrols it")
        proven = assertion.verify(workload.jwk, issuer=self._issuer, now_ms=now)
        if proven.jkt is None:
            raise InvalidToken("the assertion is not made for a DPoP key (cnf.jkt)")
        return Attested(
            workload=workload,
            subject=f"workload:{workload.tenant}/{workload.name}",
            method=METHOD,
            trust_domain=self._issuer,
            attributes={},
            evidence=proven.evidence,
            not_after=None,
            dead_at=proven.dead_at,
            replay=proven.jti,
            jkt=proven.jkt,
        )
