"""Keeping to the active policy while others activate: a replica follows, and a new tenant gets the policy.

Rules:
* What the database says of the active policy is its name alone. Its text is taken from this broker's own files: who can
  only write the database must not decide what agents may do.
* So a replica follows as soon as its files are the active ones. Until then it is not ready, and says why.
* A tenant that begins while brokers run (its first workload comes with a token of a trusted issuer), or whose
  activation could not be recorded, gets the active policy from any replica that has it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant_broker.usecases.activate_policy import newest_revision
from stepgrant_broker.wiring.bootstrap import ensure_tenant
from stepgrant_broker.wiring.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.wiring.broker import Broker
    from stepgrant_broker.wiring.policy_engines import Wanted

EVERY_MS: Final = 1000
RESTS: Final = 20
"""It waits at least so many times as long as it looked, so that very many tenants do not cost it a reader."""

_log = structlog.get_logger(__name__)


def never(_: int) -> bool:
    """`returns` of who only follows."""
    return False


class Following(Rounds):
    """Compares about every second. `source` gives the policy of this broker's own files, and may block."""

    def __init__(self, broker: Broker, wanted: Wanted, source: Callable[[], Bundle]) -> None:
        super().__init__("policy-following", EVERY_MS)
        self._broker = broker
        self._wanted = wanted
        self._source = source
        self._told: str | None = None

    async def round(self) -> int:
        """Follow, or bring tenants to the active policy; how many.

        Raises `StoreUnavailable`, `PolicyInvalid` for files with findings, `PolicyUnavailable`.
        """
        own = self._broker.policy.revision
        if own is None or self._wanted.waits:
            return 0
        began = time.monotonic()
        tenants = await self._broker.ports.reads.tenants()
        self._every_ms = max(EVERY_MS, int(RESTS * 1000 * (time.monotonic() - began)))
        active = newest_revision(tenants)
        self._broker.metrics.policy_outdated(active is not None and active != own)
        if active != own:
            return 0 if active is None else await self._follow(own, active)
        behind = [tenant.id for tenant in tenants if tenant.policy_revision != active]
        for tenant in behind:
            await ensure_tenant(self._broker, tenant)
        return len(behind)

    async def _follow(self, own: str, active: str) -> int:
        bundle = await asyncio.to_thread(self._source)
        if bundle.digest == active.partition(":")[2]:
            await self._wanted.want(bundle, returns=never)
            self._told = None
            return 1
        if self._told != active:
            self._told = active
            _log.error("policy_left_behind", active=active, decides=own, fix="give this broker the same policy files")
        return 0

    def count_failure(self, kind: str) -> None:
        """As `Rounds`."""
        self._broker.metrics.store_error(kind)
