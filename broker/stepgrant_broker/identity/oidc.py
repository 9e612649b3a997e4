"""Identity by a token of an OpenID Connect issuer (any with a key set): CI systems, clouds, Vault's identity tokens.

Rules: audience ours and no other; `iss` exactly the configured one; `sub` required. Rules match `subject` and claims
(`claims.<name>`). A subject that an issuer lets its users choose is no identity: match on immutable ids instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stepgrant.canonical import JsonValue
from stepgrant_broker.identity.attesting import Method, text_claim
from stepgrant_broker.identity.jwt_verifier import Profile
from stepgrant_broker.identity.public_keys import ALGORITHMS
from stepgrant_broker.identity.trust import Seen, TrustedIssuer

MAX_SUBJECT_CHARS: Final = 512


def facts_of(issuer: TrustedIssuer, claims: Mapping[str, JsonValue]) -> Seen:
    """Subject and claims. Raises `InvalidToken` without a usable `sub`."""
    subject = text_claim(claims, "sub", max_chars=MAX_SUBJECT_CHARS)
    return Seen(
        subject=subject,
        name=f"oidc:{issuer.name}/{subject}",
        trust_domain=str(issuer.issuer),
        facts={"subject": subject, **{f"claims.{name}": value for name, value in claims.items()}},
        shown=("subject",),
        attributes={"issuer": issuer.name},
    )


METHOD: Final = Method(
    Profile(
        method="oidc",
        algorithms=ALGORITHMS,
        usual=frozenset({"RS256", "ES256"}),
        types=frozenset({"jwt"}),
        uses=frozenset({"sig", None}),
    ),
    facts_of,
)
