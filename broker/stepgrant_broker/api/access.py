"""Broker access tokens (RFC 9068, bound by RFC 9449): made at the exchange, read at every call.

Rules:
* A token is for this broker alone (`iss` = `aud` = the configured issuer URL) and for one key (`cnf.jkt`). A grant has
  the same type and issuer; it is refused here by its key, its audience and its `authorization_details`.
* Verified once, a token is remembered by its SHA-256 until it expires; only the SHA-256 is kept. The memory is bounded.
* An enrolment outlives no token by much: it is read again once it is older than `FRESH_MS`, and forgotten at once when
  this replica removes it. What a removed workload could still do in between is stopped where it is recorded: the use
  case that removes it also throws the kill switch on it, which every commit compares.
* A key that is published no longer ends its tokens at once, remembered ones too: it may have been revoked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stepgrant._dpop import token_hash
from stepgrant._jose import check_times, check_type, encode_segment, parse
from stepgrant._keys import JoseError, VerifyingKey, verifying_key
from stepgrant.canonical import JsonValue, b64u
from stepgrant_broker.domain.errors import InvalidToken, SignerUnavailable
from stepgrant_broker.domain.writes import Workload
from stepgrant_broker.usecases.context import Ports

TYPE: Final = "at+jwt"
PURPOSE: Final = "access"
CLAIM: Final = "stepgrant"
LIFE_S: Final = 300
LEEWAY_S: Final = 5
FRESH_MS: Final = 1000
KEPT: Final = 10_000
JTI_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an exchange proved of a workload. Times in ms; `not_after` ends everything that is based on it."""

    tenant: str
    subject: str
    method: str
    trust_domain: str
    attributes: Mapping[str, str]
    evidence: str
    attested_at: int
    not_after: int


@dataclass(frozen=True, slots=True)
class Held:
    """A verified token: what was attested, for which workload and key. `read_at`: when the enrolment was read (ms).

    `kid`: the key of ours that signed it.
    """

    attestation: Attestation
    workload: Workload
    jkt: str
    read_at: int
    kid: str


class AccessTokens:
    """Makes and reads access tokens of this broker."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._issuer = ports.limits.issuer_url
        self._held: OrderedDict[str, Held] = OrderedDict()

    async def make(self, seen: Attestation, workload: Workload, jkt: str) -> tuple[str, int]:
        """A token and its life in seconds. Raises `SignerUnavailable`."""
        issued = seen.attested_at // 1000
        expires = min(issued + LIFE_S, seen.not_after // 1000)
        claims: dict[str, JsonValue] = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": seen.subject,
            "client_id": workload.id,
            "iat": issued,
            "exp": expires,
            "jti": b64u(self._ports.ids.random(JTI_BYTES)),
            "cnf": {"jkt": jkt},
            CLAIM: {
                "tenant": seen.tenant,
                "method": seen.method,
                "trust_domain": seen.trust_domain,
                "attributes": dict(seen.attributes),
                "evidence": seen.evidence,
                "attested_at": seen.attested_at,
            },
        }
        for key in await self._ports.signer.public_keys(PURPOSE):
            header = encode_segment({"alg": key.alg, "kid": key.kid, "typ": TYPE})
            signing_input = f"{header}.{encode_segment(claims)}"
            signature = await self._ports.signer.sign(PURPOSE, signing_input.encode("ascii"))
            if signature.kid != key.kid:
                raise SignerUnavailable("the signing key is being rotated; try again", retry_after_ms=200)
            return f"{signing_input}.{b64u(signature.value)}", expires - issued
        raise SignerUnavailable("there is no key to sign access tokens with")

    async def read(self, token: str, name: str | None = None) -> Held:
        """Who holds this token; `name` is its `token_hash`, if it is known. Raises `InvalidToken`."""
        # What is no ASCII is hashed as question marks, and no token that is held has one.
        name = name or token_hash(token)
        now = self._ports.clock.now()
        held = self._held.get(name)
        if held is not None and not await self._is_ours(held.kid):
            del self._held[name]
            raise InvalidToken("the access token is not valid: unknown_key")
        if held is None or held.attestation.not_after <= now:
            held = await self._verify(token, now)
        elif now - held.read_at > FRESH_MS or held.read_at > now:
            held = replace(held, workload=await self._enrolled(held.workload.id), read_at=now)
        else:
            return held
        self._held[name] = held
        self._held.move_to_end(name)
        while len(self._held) > KEPT:
            self._held.popitem(last=False)
        return held

    def forget(self, workload: str) -> None:
        """Drop what is remembered of a workload whose enrolment has just been removed."""
        for name in [name for name, held in self._held.items() if held.workload.id == workload]:
            del self._held[name]

    async def _verify(self, token: str, now: int) -> Held:
        try:
            jws = parse(token)
            check_type(jws.header, TYPE)
            kid = jws.header.get("kid")
            claims = jws.verified_claims(await self._key(kid))
            expires = check_times(claims, now_s=now / 1000, leeway_s=LEEWAY_S, max_lifetime_s=LIFE_S)
        except JoseError as error:
            raise InvalidToken(f"the access token is not valid: {error.reason}") from None
        if claims.get("iss") != self._issuer or claims.get("aud") != self._issuer or "authorization_details" in claims:
            raise InvalidToken("this is not an access token for this broker; exchange the workload's identity for one")
        seen, workload, jkt = _read(claims, expires)
        enrolled = await self._enrolled(workload)
        if enrolled.tenant != seen.tenant:
            raise InvalidToken("the workload is not enrolled in this tenant")
        return Held(seen, enrolled, jkt, now, str(kid))

    async def _is_ours(self, kid: str) -> bool:
        return kid in [key.kid for key in await self._ports.signer.public_keys(PURPOSE)]

    async def _key(self, kid: object) -> VerifyingKey:
        for key in await self._ports.signer.public_keys(PURPOSE):
            if key.kid == kid:
                return verifying_key(key.jwk)
        raise JoseError("unknown_key", "no key of this broker")

    async def _enrolled(self, workload: str) -> Workload:
        known = await self._ports.reads.workload(workload)
        if known is None or known.removed_at is not None:
            raise InvalidToken("the workload is not enrolled any more")
        return known


def _read(claims: Mapping[str, Any], expires: int) -> tuple[Attestation, str, str]:
    """Attestation, workload id and key. The signature is ours, so a missing member means a token of another kind."""
    try:
        own = claims[CLAIM]
        attestation = Attestation(
            tenant=own["tenant"],
            subject=claims["sub"],
            method=own["method"],
            trust_domain=own["trust_domain"],
            attributes=own["attributes"],
            evidence=own["evidence"],
            attested_at=own["attested_at"],
            not_after=expires * 1000,
        )
        return attestation, claims["client_id"], claims["cnf"]["jkt"]
    except (KeyError, TypeError):
        raise InvalidToken("this is not an access token of this broker") from None
