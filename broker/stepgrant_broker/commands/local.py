"""The broker's parts on its own host, for commands that need its database and keys but neither policy nor HTTP.

Nothing is activated and nothing swept: a command beside a running broker must not change under it what it decides by.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings
    from stepgrant_broker.wiring import Broker

T = TypeVar("T")


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Broker]:
    """Store, keys and ports. Raises `StepgrantFault` when database or keys are missing or cannot be used."""
    from stepgrant_broker.wiring.broker import _open
    from stepgrant_broker.wiring.seams import Seams

    async with AsyncExitStack() as stack:
        yield await _open(stack, settings, Seams(), create=False)


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run it on a loop of its own; of what is logged meanwhile, only what went wrong is shown."""
    from stepgrant_broker.wiring.logs import configure_events
    from stepgrant_broker.wiring.server import new_event_loop

    configure_events(level="error")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
