"""How late this machine is: what a test of a deadline forgives, so that a busy machine fails nothing, an idle one all.

async with lateness() as late:              # of this event loop
    ...                                     # something with a deadline of 0.4 s
assert took < 0.4 + 0.3 + late.seconds

with lateness_of_threads() as late:         # where no event loop runs, or several do
    ...
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

NAP_S: Final = 0.005


@dataclass
class Late:
    """By how much the event loop, or the thread, woke later than it was asked to, all together."""

    seconds: float = 0.0

    def woke(self, asleep_since: float) -> None:
        """Add what the nap that began then took too long."""
        self.seconds += max(0.0, time.monotonic() - asleep_since - 2 * NAP_S)


@asynccontextmanager
async def lateness() -> AsyncIterator[Late]:
    """Watch the loop for as long as the block takes."""
    late = Late()

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(NAP_S)
            late.woke(before)

    watching = asyncio.create_task(watch())
    try:
        yield late
        await asyncio.sleep(NAP_S)  # the delay that the block itself ended with is counted too
    finally:
        watching.cancel()


@contextmanager
def lateness_of_threads() -> Iterator[Late]:
    """Watch the machine from a thread for as long as the block takes."""
    late, done = Late(), threading.Event()

    def watch() -> None:
        ended = False
        while not ended:
            before = time.monotonic()
            ended = done.wait(NAP_S)
            late.woke(before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield late
    finally:
        done.set()
        watching.join()
