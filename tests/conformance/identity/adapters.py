"""The identities that the suite runs over. A new one joins by a class here and a line in `ADAPTERS`.

An adapter forges tokens of its kind: right ones, and ones with any fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from forging import ForgersKey, eddsa, es256, rs256
from stepgrant_broker.domain.ports import Identity
from stepgrant_broker.domain.writes import Workload
from stepgrant_broker.identity.attesting import IssuedIdentity
from stepgrant_broker.identity.enrolled import EnrolledIdentity
from stepgrant_broker.identity.jwt_verifier import Demands, JwtVerifier
from stepgrant_broker.identity.key_source import Fetched, KeySource
from stepgrant_broker.wiring.identity import METHODS
from trusted import BROKER, claims_of, issuer_table, read_trust, rule_table

NOW_S: Final = 1_800_000_000
JKT: Final = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@dataclass(frozen=True)
class Kind:
    """One adapter with the key of its issuer. `right` are the claims of a right token, `header` its header."""

    identity: Identity
    method: str
    key: ForgersKey
    right: Mapping[str, Any]
    header: Mapping[str, Any]
    lifetime_s: int
    sole_audience: bool = True
    issued: bool = True
    other_subject: Mapping[str, Any] = field(default_factory=dict)

    def token(self, *, by: ForgersKey | None = None, header: Mapping[str, Any] | None = None, **claims: Any) -> str:  # noqa: ANN401
        """A token; a claim or header member that is given replaces the right one, `...` leaves it out."""
        key = by or self.key
        given = {**self.right, **claims}
        named = {"alg": key.alg, **self.header, **(header or {})}
        return key.jws(
            {k: v for k, v in named.items() if v is not ...}, {k: v for k, v in given.items() if v is not ...}
        )


Make: TypeAlias = Callable[[Path], Kind]


@dataclass(frozen=True)
class Enrolments:
    """One enrolment."""

    row: Workload

    async def workload(self, workload: str) -> Workload | None:
        return self.row if workload == self.row.id else None


def _enrolled(make: Callable[[], ForgersKey]) -> Make:
    def made(_: Path) -> Kind:
        key = make()
        row = Workload("wkl_01", "acme", "refunds", "enrolled_key", ("agent",), (), key.jwk, "thumbprint", 0)
        right = {
            "iss": row.id, "sub": row.id, "aud": BROKER, "iat": NOW_S - 1, "exp": NOW_S + 60,
            "jti": "0123456789abcdef", "cnf": {"jkt": JKT},
        }  # fmt: skip
        identity = EnrolledIdentity(Enrolments(row), BROKER)
        return Kind(identity, "enrolled_key", key, right, {"typ": "client-authentication+jwt"}, 300, issued=False)

    return made


def issued(method: str, key: ForgersKey, folder: Path, *rules: str, **table: Any) -> IssuedIdentity:  # noqa: ANN401
    """The adapter of an issuer with this one key, as wiring puts it together, over a fetch that never fails."""
    trust = read_trust(folder, issuer_table(method, **table), *(rules or (rule_table(method),)))
    issuer, profile = trust.issuers[0], METHODS[method].profile
    use = "jwt-svid" if method == "spiffe-jwt" else "sig"

    async def fetch() -> Fetched:
        return Fetched({"keys": [{**key.jwk, "kid": "k1", "alg": key.alg, "use": use}]})

    demands = Demands(issuer.issuer, issuer.audience, issuer.algorithms, issuer.max_lifetime_s)
    verifier = JwtVerifier(profile, demands, KeySource(issuer.name, fetch, profile.uses))
    return IssuedIdentity(issuer, METHODS[method], trust.rules_of(issuer.name), verifier)


def _issued(method: str, key: Callable[[], ForgersKey], rule: str, other_subject: Mapping[str, Any]) -> Make:
    def made(folder: Path) -> Kind:
        drawn = key()
        algorithms = {} if drawn.alg != "EdDSA" else {"algorithms": ["EdDSA"]}
        return Kind(
            issued(method, drawn, folder, rule_table(method, rule), **algorithms),
            method,
            drawn,
            claims_of(method, NOW_S),
            {"typ": "JWT", "kid": "k1"},
            3600,
            sole_audience=METHODS[method].profile.sole_audience,
            other_subject=other_subject,
        )

    return made


_OTHER_ACCOUNT: Final = {
    "sub": "system:serviceaccount:payments:other",
    "kubernetes.io": {
        "namespace": "payments", "pod": {"name": "p", "uid": "u"}, "serviceaccount": {"name": "other", "uid": "u"},
    },
}  # fmt: skip
ADAPTERS: Final[Mapping[str, Make]] = {
    "enrolled ES256": _enrolled(es256),
    "enrolled EdDSA": _enrolled(eddsa),
    "oidc": _issued("oidc", rs256, 'subject = "repo/acme/*"', {"sub": "repo/acme/other"}),
    "oidc EdDSA": _issued("oidc", eddsa, 'subject = "repo/acme/*"', {"sub": "repo/acme/other"}),
    "spiffe-jwt": _issued("spiffe-jwt", es256, 'path = "/agents/*"', {"sub": "spiffe://prod.example/agents/other"}),
    "kubernetes": _issued(
        "kubernetes", rs256, 'namespace = "payments"\nservice_account = "*"', _OTHER_ACCOUNT
    ),
}  # fmt: skip
