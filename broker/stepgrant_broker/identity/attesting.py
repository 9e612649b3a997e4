"""From a verified token of an issuer to a workload, the same for every method: facts, rule, names, attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from stepgrant.canonical import JsonValue
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.domain.ports import Attested
from stepgrant_broker.identity.jwt_verifier import LEEWAY_S, JwtVerifier, Profile, Verified
from stepgrant_broker.identity.trust import Rule, Seen, TrustedIssuer, choose, workload_of

FactsOf: TypeAlias = Callable[[TrustedIssuer, Mapping[str, JsonValue]], Seen]
"""Reads what a method's verified claims say. Raises `InvalidToken` for claims that are none of that method."""

MAX_ATTRIBUTE_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Method:
    """A way to attest: what its tokens look like, and how they are read."""

    profile: Profile
    facts_of: FactsOf


class IssuedIdentity:
    """The port `Identity` over the tokens of one issuer."""

    def __init__(self, issuer: TrustedIssuer, method: Method, rules: tuple[Rule, ...], verifier: JwtVerifier) -> None:
        self.issuer: Final = issuer
        self._method = method
        self._rules = rules
        self._verifier = verifier

    async def attest(self, token: str, now: int) -> Attested:
        """As `Identity`."""
        verified = await self._verifier.verify(token, now / 1000)
        seen = self._method.facts_of(self.issuer, verified.claims)
        rule = choose(self._rules, self.issuer.name, seen)
        end = (verified.exp_s + LEEWAY_S) * 1000
        return Attested(
            workload=workload_of(self.issuer, rule, seen),
            subject=seen.name,
            method=self._method.profile.method,
            trust_domain=seen.trust_domain,
            attributes={**_passed(rule, verified), **rule.attributes, **seen.attributes},
            evidence=verified.evidence,
            not_after=end,
            dead_at=end,
            replay=verified.evidence if self.issuer.single_use else None,
            jkt=verified.jkt,
        )


def _passed(rule: Rule, verified: Verified) -> dict[str, str]:
    """The claims that the rule lets through to policy. Raises `InvalidToken` if one is missing: policy counts on it."""
    passed: dict[str, str] = {}
    for name in rule.pass_claims:
        value = verified.claims.get(name)
        if not isinstance(value, str) or len(value) > MAX_ATTRIBUTE_CHARS:
            raise InvalidToken(
                f"rule {rule.workload} passes the claim {name} on, and the token has none that is text of at most "
                f"{MAX_ATTRIBUTE_CHARS} characters"
            )
        passed[name] = value
    return passed


def text_claim(claims: Mapping[str, JsonValue], name: str, *, max_chars: int) -> str:
    """A claim that must be printable text. Raises `InvalidToken`."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= max_chars or not value.isprintable():
        raise InvalidToken(f"the identity token is not valid: {name} is not text of 1 to {max_chars} characters")
    return value
