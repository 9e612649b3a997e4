"""Which audiences have a server that can redeem: without one, that a grant was not redeemed proves nothing.

Rules:
* Known for at most `FRESH_MS`, and forgotten at once when this replica enrols or removes a server. Until then a server
  that another replica enrolled is not known: its grants count as perhaps used, which is the safe side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stepgrant_broker.domain.reads import Reads

FRESH_MS: Final = 1000


class Served:
    """What this process knows of each tenant, and since when."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, frozenset[str]]] = {}

    async def has(self, reads: Reads, tenant: str, audience: str, now: int) -> bool:
        """True when a living workload of the tenant serves the audience. Raises `StoreUnavailable`."""
        known = self._known.get(tenant)
        if known is None or not 0 <= now - known[0] < FRESH_MS:
            known = self._known[tenant] = (now, await reads.audiences(tenant))
        return audience in known[1]

    def forget(self, tenant: str) -> None:
        """A workload of the tenant came or went."""
        self._known.pop(tenant, None)
