"""The log over all chains, for anybody (C2SP tlog-tiles): no tenant's name, value or count can be read from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stepgrant.tlog import TileInvalid
from stepgrant_broker.api.messages import Answer
from stepgrant_broker.api.routing import Endpoint, public
from stepgrant_broker.domain.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from stepgrant_broker.api.context import Api
    from stepgrant_broker.api.messages import Incoming

TEXT: Final = b"text/plain; charset=utf-8"
BYTES: Final = b"application/octet-stream"
FOR_EVER: Final = (b"cache-control", b"public, max-age=31536000, immutable")


async def log_head(api: Api, _: Incoming) -> Answer:
    """The newest signed tree head (C2SP tlog-checkpoint)."""
    head = await api.log.head()
    if head is None:
        raise NotFound("no head was signed yet")
    return Answer(200, head, TEXT)


async def log_keys(api: Api, _: Incoming) -> Answer:
    """The log's verifier keys, one line each, newest first."""
    return Answer(200, "".join(f"{key}\n" for key in await api.log.vkeys()).encode(), TEXT)


async def log_tile(api: Api, incoming: Incoming) -> Answer:
    """A tile of hashes, or `tile/entries/…`: the 32-byte hashes of entries."""
    try:
        data = await api.log.tile("tile/" + incoming.scope["path_params"]["tile"])
    except TileInvalid as error:
        raise InvalidRequest(str(error), field="tile") from None
    if data is None:
        raise NotFound("the tree has no such tile yet")
    return Answer(200, data, BYTES, cache=FOR_EVER)


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    public("GET", "/v1/log/checkpoint", log_head, str),
    public("GET", "/v1/log/keys", log_keys, str),
    public("GET", "/v1/log/tile/{tile}", log_tile, bytes),
)
