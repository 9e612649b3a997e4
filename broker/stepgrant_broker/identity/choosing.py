"""Which adapter reads a token: by the token's type, and by its own issuer matched against the configured ones.

What the token says of itself only selects; the adapter then verifies all of it with the keys of that issuer. So a token
that names an issuer that did not sign it is refused, and one that names an unknown issuer is never followed anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stepgrant import _jose
from stepgrant._keys import JoseError
from stepgrant_broker.domain.errors import InvalidToken
from stepgrant_broker.domain.ports import Attested, Identity
from stepgrant_broker.identity import oidc, spiffe_jwt
from stepgrant_broker.identity.attesting import IssuedIdentity

TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TYPE_ID: Final = "urn:ietf:params:oauth:token-type:id_token"


class Identities:
    """All identities that a broker knows: enrolled keys, and those of the trust file's issuers.

    Args:
        enrolled: for tokens of nobody else.
        issued: one for each issuer of the trust file, which has no two for one `iss` or trust domain.
    """

    def __init__(self, enrolled: Identity, issued: Sequence[IssuedIdentity] = ()) -> None:
        self._enrolled = enrolled
        self._by_issuer = {one.issuer.issuer: one for one in issued if one.issuer.issuer is not None}
        self._by_domain = {one.issuer.trust_domain: one for one in issued if one.issuer.trust_domain is not None}

    async def attest(self, token: str, token_type: str, now: int) -> Attested:
        """Who calls. `token_type` is one of RFC 8693 §3. Raises `InvalidToken`, `IssuerUnavailable`."""
        return await self.adapter_of(token, token_type).attest(token, now)

    def adapter_of(self, token: str, token_type: str = TYPE_JWT) -> Identity:
        """Who would verify this token. Raises `InvalidToken` if nobody would."""
        try:
            claims = _jose.parse(token).unverified_claims()
        except JoseError as error:
            raise InvalidToken(f"the subject token cannot be read: {error.detail} ({error.reason})") from None
        issuer, subject = claims.get("iss"), claims.get("sub")
        chosen: IssuedIdentity | None = None
        if isinstance(issuer, str):
            chosen = self._by_issuer.get(issuer)
        if (
            chosen is None
            and isinstance(subject, str)
            and subject[: len(spiffe_jwt.SCHEME)].lower() == spiffe_jwt.SCHEME
        ):
            chosen = self._of_domain(subject)
        elif chosen is None and issuer != subject:
            raise InvalidToken("no issuer of the trust file is this token's iss, and no enrolled workload signed it")
        if token_type == TYPE_ID and (chosen is None or chosen.issuer.method != oidc.METHOD.profile.method):
            raise InvalidToken("an id_token comes from an issuer of method oidc; for other identities say jwt")
        return self._enrolled if chosen is None else chosen

    def _of_domain(self, subject: str) -> IssuedIdentity:
        parts = spiffe_jwt.split_id(subject)
        if parts is None:
            raise InvalidToken("the identity token is not valid: sub is not a SPIFFE ID of a workload (bad_spiffe_id)")
        chosen = self._by_domain.get(parts[0])
        if chosen is None:
            raise InvalidToken(
                "no issuer of the trust file has the trust domain of this SPIFFE ID (wrong_trust_domain)"
            )
        return chosen
