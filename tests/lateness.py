"""How late this machine is: what a test of a deadline forgives, so that a busy machine fails nothing, an idle one all.

async with lateness() as late:
...                                     # something with a deadline of 0.4 s
assert took < 0.4 + 0.3 + late.seconds
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

NAP_S: Final = 0.005


@dataclass
class Late:
    """By how much the event loop woke later than it was asked to, all together."""

    seconds: float = 0.0


@asynccontextmanager
async def lateness() -> AsyncIterator[Late]:
    """Watch the loop for as long as the block takes."""
    late = Late()

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(NAP_S)
            late.seconds += max(0.0, time.monotonic() - before - 2 * NAP_S)

    watching = asyncio.create_task(watch())
    try:
        yield late
        await asyncio.sleep(NAP_S)  # the delay that the block itself ended with is counted too
    finally:
        watching.cancel()
