"""Watching the policy folder: what is saved there becomes active, if it is sound (`watch_policy`, for development)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.watch import watch

if TYPE_CHECKING:
    from pathlib import Path

    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.wiring.broker import Broker
    from stepgrant_broker.wiring.policy_engines import Wanted

RETRIES: Final = 5
RETRY_S: Final = 2.0

_log = structlog.get_logger(__name__)


async def watch_policy(broker: Broker, wanted: Wanted, folder: Path, known: str) -> None:
    """Go on until cancelled. `known` is the digest of what is active now."""

    async def changed(bundle: Bundle) -> None:
        for _ in range(RETRIES):
            try:
                revision = await wanted.want(bundle)
            except PolicyInvalid:
                raise
            except StepgrantFault as fault:
                _log.error("policy_not_activated", code=fault.code)
                await asyncio.sleep(RETRY_S)
            else:
                if revision is not None:
                    _log.warning("policy_reloaded", revision=revision)
                return

    async def broken(invalid: PolicyInvalid) -> None:
        stays = broker.policy.revision
        _log.error("policy_broken", stays_active=stays, findings=[str(finding) for finding in invalid.findings])

    await watch(folder, changed=changed, broken=broken, known=known)


async def cancelled(task: asyncio.Task[None]) -> None:
    """End it."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
