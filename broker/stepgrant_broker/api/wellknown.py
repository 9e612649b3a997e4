"""What anybody may read: public keys, the description of this API, health, metrics; and the token endpoint."""

from __future__ import annotations

from typing import Any, Final

from stepgrant_broker.api import shapes_people as shapes
from stepgrant_broker.api.context import Api
from stepgrant_broker.api.messages import Answer, Incoming, json_answer
from stepgrant_broker.api.metrics import MEDIA_TYPE
from stepgrant_broker.api.routing import Endpoint, public
from stepgrant_broker.api.token import token

KEYS_CACHE: Final = (b"cache-control", b"public, max-age=300")
RETRY: Final = (b"retry-after", b"1")


async def jwks(api: Api, _: Incoming) -> Answer:
    """The keys that verify grants and access tokens."""
    return await _keys(api, "grants", "access")


async def ledger_keys(api: Api, _: Incoming) -> Answer:
    """The keys that verify run heads in receipts."""
    return await _keys(api, "heads")


async def _keys(api: Api, *purposes: str) -> Answer:
    keys = {key.kid: dict(key.jwk) for purpose in purposes for key in await api.ports.signer.public_keys(purpose)}
    answer = json_answer({"keys": list(keys.values())})
    answer.cache = KEYS_CACHE
    return answer


async def openapi(api: Api, _: Incoming) -> Answer:
    """This description."""
    return Answer(200, api.description())


async def healthz(_: Api, __: Incoming) -> Answer:
    """Whether the process answers."""
    return json_answer({"status": "ok"})


async def readyz(api: Api, _: Incoming) -> Answer:
    """Whether store, policy and signer work, and the log goes on where it was."""
    checks = await api.health.checks()
    if all(state == "ok" for state in checks.values()):
        return json_answer({"status": "ok", "checks": checks})
    return json_answer({"status": "unavailable", "checks": checks}, status=503, headers=[RETRY])


async def metrics(api: Api, _: Incoming) -> Answer:
    """Counters and histograms in the Prometheus text format."""
    return Answer(200, api.metrics.text().encode(), MEDIA_TYPE)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    public("POST", "/oauth/token", token, shapes.Token),
    public("GET", "/.well-known/jwks.json", jwks, shapes.Jwks),
    public("GET", "/v1/ledger/keys", ledger_keys, shapes.Jwks),
    public("GET", "/openapi.json", openapi, dict[str, Any]),
    public("GET", "/healthz", healthz, shapes.Alive),
    public("GET", "/readyz", readyz, shapes.Ready),
    public("GET", "/metrics", metrics, str),
)
