"""The one reader of identity tokens that others issued (RFC 7519, RFC 8725). What differs by method is its `Profile`.

Rules, in this order; the first that fails names itself:
* compact JWS, strict JSON, no `crit` (`stepgrant._jose`); no `jwk`, `jku`, `x5u`, `x5c` in the header: a token that
  brings its own key is refused, not merely not obeyed;
* `alg` is in the issuer's list, which holds asymmetric algorithms only; `typ` is one that the method knows;
* the key is the issuer's, by `kid`, and verifies that algorithm (`public_keys`);
* `iss` is exactly the configured issuer; `aud` holds our audience, and where the profile says so nothing else: a token
  that another service also takes could be used here by that service;
* `exp` is required, `nbf` and `iat` count where they are there, `iat` where the profile requires it; leeway 30 s.
  `exp - iat` (without `iat`: `exp - now`) is at most `max_lifetime_s`, which is also the greatest age;
* `cnf` can only name a DPoP key (`jkt`); a token that is bound in another way is refused, for nobody checks it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stepgrant import _jose
from stepgrant._keys import JoseError
from stepgrant.canonical import JsonValue, digest_bytes
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.identity.key_source import Keys

LEEWAY_S: Final = 30
FOREIGN_KEYS: Final = frozenset({"jwk", "jku", "x5u", "x5c"})


@dataclass(frozen=True, slots=True)
class Profile:
    """What a method asks of its tokens. `headers`: the only header members, None for any that are not refused anyway.

    `types` are the accepted `typ` in lower case; it may always be absent. `algorithms`: what an issuer may be
    configured for; `usual`: what it is without being told. `uses`: as of `public_keys.read_key_set`.
    """

    method: str
    algorithms: frozenset[str]
    usual: frozenset[str]
    types: frozenset[str]
    uses: frozenset[str | None]
    headers: frozenset[str] | None = None
    sole_audience: bool = True
    iat_required: bool = True
    issuer_required: bool = True


@dataclass(frozen=True, slots=True)
class Demands:
    """What this issuer's tokens must show. `issuer` is None only for a method whose tokens need no `iss`."""

    issuer: str | None
    audience: str
    algorithms: frozenset[str]
    max_lifetime_s: int


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that is what it says. `evidence` is its digest; `jkt` the DPoP key that it names, if any."""

    claims: Mapping[str, JsonValue] = field(repr=False)
    evidence: str
    exp_s: int
    jkt: str | None


class JwtVerifier:
    """Verifies the tokens of one issuer."""

    def __init__(self, profile: Profile, demands: Demands, keys: Keys) -> None:
        self._profile = profile
        self._demands = demands
        self._keys = keys

    async def verify(self, token: str, now_s: float) -> Verified:
        """Raises `InvalidToken` with the rule that failed; `IssuerUnavailable` when the keys are out of reach."""
        try:
            jws = _jose.parse(token)
            alg = self._check_header(jws.header)
            key = await self._keys.find(_kid(jws.header), alg)
            key.verify(alg, jws.signing_input, jws.signature)
            claims = jws.unverified_claims()  # verified in the line above
            self._check_issuer(claims)
            self._check_audience(claims.get("aud"))
            exp = self._check_times(claims, now_s)
            jkt = _bound_to(claims)
        except JoseError as error:
            raise InvalidToken(f"the identity token is not valid: {error.detail} ({error.reason})") from None
        return Verified(claims, digest_bytes(token.encode("ascii")), exp, jkt)

    def _check_header(self, header: Mapping[str, JsonValue]) -> str:
        alg, typ, only = header["alg"], header.get("typ", "jwt"), self._profile.headers
        if not FOREIGN_KEYS.isdisjoint(header):
            raise JoseError("foreign_key", "the header brings a key or its address; keys come from the issuer alone")
        if only is not None and not only.issuperset(header):
            raise JoseError("foreign_header", f"the header may have {', '.join(sorted(only))} only")
        if not isinstance(alg, str) or alg not in self._demands.algorithms:
            allowed = ", ".join(sorted(self._demands.algorithms))
            raise JoseError("bad_algorithm", f"the token's alg is not one that the trust file allows ({allowed})")
        if not isinstance(typ, str) or typ.lower() not in self._profile.types:
            raise JoseError("wrong_type", f"typ says that this is another kind of token than {self._profile.method}")
        return alg

    def _check_issuer(self, claims: Mapping[str, JsonValue]) -> None:
        wanted = self._demands.issuer
        if wanted is not None and claims.get("iss") != wanted:
            raise JoseError("wrong_issuer", "iss is not exactly the issuer of the trust file")

    def _check_audience(self, aud: JsonValue) -> None:
        given = [aud] if isinstance(aud, str) else aud
        if not isinstance(given, list) or self._demands.audience not in given:
            raise JoseError("wrong_audience", f"aud is not {self._demands.audience}: the token is for somebody else")
        if self._profile.sole_audience and len(given) != 1:
            raise JoseError("wrong_audience", f"aud must be {self._demands.audience} alone: others hold such a token")

    def _check_times(self, claims: Mapping[str, JsonValue], now_s: float) -> int:
        exp = _date(claims, "exp")
        if exp is None:
            raise JoseError("malformed", "exp is missing")
        iat, nbf = _date(claims, "iat"), _date(claims, "nbf")
        if iat is None and self._profile.iat_required:
            raise JoseError("malformed", "iat is missing")
        if exp <= now_s - LEEWAY_S:
            raise JoseError("expired", "exp is past")
        if max(nbf or 0, iat or 0) > now_s + LEEWAY_S:
            raise JoseError("not_yet_valid", "nbf or iat is in the future")
        limit = self._demands.max_lifetime_s
        if exp - (now_s if iat is None else iat) > limit or (iat is not None and exp < iat):
            raise JoseError("lifetime", f"exp is not within {limit} s after iat; ask the issuer for shorter tokens")
        return exp


def _kid(header: Mapping[str, JsonValue]) -> str | None:
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise JoseError("malformed", "kid is not text")
    return kid


def _bound_to(claims: Mapping[str, JsonValue]) -> str | None:
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    jkt = cnf.get("jkt") if isinstance(cnf, dict) and len(cnf) == 1 else None
    if not isinstance(jkt, str):
        raise JoseError("bound_otherwise", "cnf names something else than one DPoP key (jkt)")
    return jkt


def _date(claims: Mapping[str, JsonValue], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise JoseError("malformed", f"{name} is not a time in whole seconds")
    return value
