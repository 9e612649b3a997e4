"""Identity by a SPIFFE JWT-SVID.

Rules (SPIFFE ID, JWT-SVID and trust domain specifications):
* The header has `alg`, `kid` and `typ` only; `typ` is `JWT`, `JOSE` or absent; no EdDSA.
* `aud` must contain our audience (others may stand beside it; a workload should ask for ours alone), `exp` is
  required, `iss` is not (if the file names one, it must be exactly that).
* `sub` is a SPIFFE ID of the trust domain whose bundle verified it: never another domain's, whoever signed. It is
  refused rather than put right: no upper case in the domain, no empty, `.` or `..` segment, no escape, query, port.
* Keys come from bundle entries with `use` `jwt-svid` alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stepgrant.canonical import JsonValue
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.identity.attesting import Method, text_claim
from stepgrant_broker.identity.jwt_verifier import Profile
from stepgrant_broker.identity.public_keys import ALGORITHMS
from stepgrant_broker.identity.trust import Seen, TrustedIssuer

SCHEME: Final = "spiffe://"
TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)+")
MAX_ID_CHARS: Final = 2048


def split_id(text: str) -> tuple[str, str] | None:
    """Trust domain and path of a SPIFFE ID of a workload; None for whatever is not exactly one."""
    if len(text) > MAX_ID_CHARS or not text.startswith(SCHEME):
        return None
    domain, slash, path = text.removeprefix(SCHEME).partition("/")
    if not TRUST_DOMAIN.fullmatch(domain) or not PATH.fullmatch(slash + path):
        return None
    return domain, slash + path


def facts_of(issuer: TrustedIssuer, claims: Mapping[str, JsonValue]) -> Seen:
    """Trust domain and path. Raises `InvalidToken` for another domain, or a `sub` that is no SPIFFE ID."""
    subject = text_claim(claims, "sub", max_chars=MAX_ID_CHARS)
    parts = split_id(subject)
    if parts is None:
        raise InvalidToken("the identity token is not valid: sub is not a SPIFFE ID of a workload (bad_spiffe_id)")
    domain, path = parts
    if domain != issuer.trust_domain:
        raise InvalidToken(
            f"the identity token is not valid: sub is of another trust domain than {issuer.trust_domain} "
            "(wrong_trust_domain)"
        )
    return Seen(
        subject=path,
        name=subject,
        trust_domain=domain,
        facts={"path": path},
        shown=("path",),
        attributes={"issuer": issuer.name, "spiffe_id": subject},
    )


METHOD: Final = Method(
    Profile(
        method="spiffe-jwt",
        algorithms=ALGORITHMS - {"EdDSA"},
        usual=ALGORITHMS - {"EdDSA"},
        types=frozenset({"jwt", "jose"}),
        uses=frozenset({"jwt-svid"}),
        headers=frozenset({"alg", "kid", "typ"}),
        sole_audience=False,
        iat_required=False,
        issuer_required=False,
    ),
    facts_of,
)
