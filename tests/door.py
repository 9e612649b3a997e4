"""A served broker that trusts an issuer process for every method, and who knocks at its token endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from fakes.served import URL, Broker
from issuer_process import JWKS, Issuer
from stepgrant._dpop import DpopKey
from stepgrant_broker.identity.choosing import Identities
from stepgrant_broker.identity.enrolled import EnrolledIdentity
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.wiring.identity import issued_identity
from trusted import claims_of, issuer_table, read_trust, rule_table

METHODS: Final = ("oidc", "spiffe-jwt", "kubernetes")
TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TYPE_ID: Final = "urn:ietf:params:oauth:token-type:id_token"


@dataclass
class Door:
    """A broker that trusts the issuer process for every method, and who knocks."""

    broker: Broker
    issuer: Issuer
    before: tuple[Any, ...] = ()
    dpop: DpopKey = field(default_factory=DpopKey)

    @property
    def now_s(self) -> int:
        return int(self.broker.now_s)

    def kid(self, method: str) -> str:
        """The key that signs for this method."""
        use = "jwt-svid" if method == "spiffe-jwt" else "sig"
        found = [key["kid"] for key in self.issuer.published() if (key["use"], key["alg"]) == (use, "RS256")]
        return found[0]

    def token(self, method: str = "oidc", header: Mapping[str, Any] | None = None, **claims: Any) -> str:  # noqa: ANN401
        """Signed by the issuer, whatever it says; a member that is `...` is left out."""
        return self.issuer.sign(claims_of(method, self.now_s, **claims), header, kid=self.kid(method))

    async def knock(self, token: str, token_type: str = TYPE_JWT) -> httpx.Response:
        """A try at the token endpoint."""
        proof = self.dpop.proof(
            "POST", URL + "/oauth/token", nonce=self.broker.nonces.current(self.broker.now_s), now=self.broker.now_s
        )
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token,
            "subject_token_type": token_type,
        }  # fmt: skip
        response = await self.broker.client.post("/oauth/token", data=form, headers={"dpop": proof})
        return self.broker.checked(response)

    async def state(self) -> tuple[Any, ...]:
        workloads = (await self.broker.person("GET", "/v1/workloads")).json()["workloads"]
        return await self.broker.entries(None), workloads, await self.broker.runs()

    async def refuses(self, token: str, reason: str, **more: Any) -> str:  # noqa: ANN401 - of `knock`
        """Nobody gets in, the answer says why and repeats nothing of the token, and nothing was written."""
        response = await self.knock(token, **more)
        assert (response.status_code, response.json().get("error")) == (401, "invalid_client"), response.text
        told = str(response.json()["error_description"])
        assert reason in told
        assert [piece for piece in token.split(".") if len(piece) > 9 and piece in response.text] == []
        assert await self.state() == self.before
        return told

    async def admits(self, token: str, token_type: str = TYPE_JWT) -> dict[str, Any]:
        response = await self.knock(token, token_type)
        assert response.status_code == 200, response.text
        return dict(response.json())


def trusting(ports: Ports, process: Issuer, folder: Path) -> Identities:
    """Identities of a broker that trusts the process for all methods."""
    keys = process.url + JWKS
    trust = read_trust(
        folder,
        *(issuer_table(method, jwks_url=keys) for method in METHODS),
        issuer_table("oidc", "other", issuer="https://other.example", jwks_url=keys, algorithms=["ES256"]),
        *(rule_table(method) for method in METHODS),
    )
    adapters = [issued_identity(trust, one)[0] for one in trust.issuers]
    return Identities(EnrolledIdentity(ports.reads, URL), adapters)
