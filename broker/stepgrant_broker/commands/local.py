"""Commands on the broker's own host that need its database and keys, but neither policy nor HTTP.

They use `wiring.opened`, which activates and sweeps nothing: a command beside a running broker must not change under it
what it decides by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run it on a loop of its own; of what is logged meanwhile, only what went wrong is shown."""
    from stepgrant_broker.wiring.logs import configure_events
    from stepgrant_broker.wiring.server import new_event_loop

    configure_events(level="error")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
