"""Trust rules: which identities of which issuers are which workloads. Tenant and names come from here and nowhere else.

Rules:
* The first rule of the identity's issuer that matches says who it is. No match is a refusal that says what was missing.
* A pattern is exact text, or ends in `/*`, which stands for one more path segment that is not empty. `*` alone, where a
  method allows it, stands for one segment too. Nothing is a prefix, a regular expression, or case-insensitive.
* The workload's id is made of tenant, issuer, workload and subject, so that it stays the same on every replica and
  after every restart, and a kill switch on it holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from stepgrant.canonical import JsonValue, dumps
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.domain.writes import Workload

Scalar: TypeAlias = str | int | bool
_ID_CHARS: Final = 26
_SHOWN_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where an issuer's keys come from: exactly one of the three. `file` is absolute."""

    url: str | None = None
    discovery: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One `[[issuer]]`. `issuer` is the exact `iss`; `trust_domain` is set for spiffe-jwt only. Files are absolute."""

    name: str
    method: str
    tenant: str
    keys: KeyPlace
    audience: str
    algorithms: frozenset[str]
    max_lifetime_s: int
    issuer: str | None = None
    trust_domain: str | None = None
    ca_file: str | None = None
    single_use: bool = False
    require_pod: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[rule]]`: identities of `issuer` with these facts are this workload.

    `when` maps the name of a fact (as `facts_of` of the method calls it) to a pattern. `attributes` reach policy as
    they are, and the claims of `pass_claims` by their names.
    """

    issuer: str
    workload: str
    when: Mapping[str, Scalar]
    agents: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    pass_claims: tuple[str, ...] = ()

    def matches(self, facts: Mapping[str, JsonValue]) -> bool:
        """Whether every fact that the rule names is there and fits."""
        return all(name in facts and fits(pattern, facts[name]) for name, pattern in self.when.items())

    def covers(self, later: Rule) -> bool:
        """Whether whatever `later` matches is matched by this rule before it."""
        return self.issuer == later.issuer and all(
            name in later.when and _covers(pattern, later.when[name]) for name, pattern in self.when.items()
        )


@dataclass(frozen=True, slots=True)
class Trust:
    """A whole trust file."""

    issuers: tuple[TrustedIssuer, ...] = ()
    rules: tuple[Rule, ...] = ()

    def rules_of(self, issuer: str) -> tuple[Rule, ...]:
        """The rules of this issuer, in the order of the file."""
        return tuple(rule for rule in self.rules if rule.issuer == issuer)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a method read in verified claims.

    `subject` is the identity within its issuer; `name` is the whole subject, unique in a tenant. `facts` are what rules
    can match, `shown` those of them that a refusal shows, so that somebody can write the rule.
    """

    subject: str
    name: str
    trust_domain: str
    facts: Mapping[str, JsonValue]
    shown: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)


def fits(pattern: Scalar, value: JsonValue) -> bool:
    """Whether a fact is what the pattern says: the same type and the same value, or one segment for a `*`."""
    if type(pattern) is not type(value):  # True is no 1
        return False
    if isinstance(pattern, str) and isinstance(value, str) and _open(pattern):
        rest = value.removeprefix(pattern[:-1])
        return value.startswith(pattern[:-1]) and rest != "" and "/" not in rest
    return pattern == value


def _open(pattern: str) -> bool:
    return pattern == "*" or pattern.endswith("/*")


def _covers(pattern: Scalar, later: Scalar) -> bool:
    return pattern == later if isinstance(later, str) and _open(later) else fits(pattern, later)


def choose(rules: Iterable[Rule], issuer: str, seen: Seen) -> Rule:
    """The first rule that matches. Raises `InvalidToken`, naming the rule that would be needed."""
    for rule in rules:
        if rule.matches(seen.facts):
            return rule
    wanted = ", ".join(f"{name} = {_toml(seen.facts[name])}" for name in seen.shown if name in seen.facts)
    raise InvalidToken(
        f"no rule of the trust file is for this identity of issuer {issuer}; one would need: {wanted[:_SHOWN_CHARS]}"
    )


def _toml(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=True)


def workload_of(issuer: TrustedIssuer, rule: Rule, seen: Seen) -> Workload:
    """Who the identity is. It holds no key: each exchange brings a token of the issuer."""
    identity = dumps([issuer.tenant, issuer.name, rule.workload, seen.subject])
    digest = base64.b32encode(hashlib.sha256(identity).digest()).decode("ascii").lower()
    return Workload(
        id="wkl_" + digest[:_ID_CHARS],
        tenant=issuer.tenant,
        name=rule.workload,
        kind=issuer.method,
        agents=rule.agents,
        audiences=rule.audiences,
        jwk={},
        jkt="",
        enrolled_at=0,
    )
