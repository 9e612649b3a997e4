"""A second process on the same database; its arguments are adapter, location and a task.

`die POINT` commits one set, and another one with a number of rows; in that it is killed by SIGKILL at the failpoint, or
(POINT `acknowledged`) right after it was acknowledged.
`rival RUN TIMES` appends to the run so many times, loading again whenever it moved.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Final

from conformance.store.adapters import ADAPTERS, AnyStore
from conformance.store.making import Chain, SetClock, a_payload, a_proof, a_step
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.domain.writes import Query

ACKNOWLEDGED: Final = "acknowledged"


class Killing:
    """Failpoints that kill this process at one point, after the first commit was let through."""

    def __init__(self, point: str) -> None:
        self._point = point
        self.armed = False

    def hit(self, point: str) -> None:
        if self.armed and point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


async def die(store: AnyStore, killing: Killing, point: str) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1, proof=a_proof()))
    print(chain.run, flush=True)  # noqa: T201 - the parent reads it
    killing.armed = True
    rows = tuple(a_step(chain.the_run) for _ in range(5))
    await store.commit(chain.adds(2, rows=rows, proof=a_proof(), payloads=(a_payload(b"x" * 100_000),)))
    if point == ACKNOWLEDGED:
        os.kill(os.getpid(), signal.SIGKILL)
    await store.close()


async def rival(store: AnyStore, run: str, times: int) -> None:
    done = 0
    while done < times:
        found = (await store.load(Query("acme", run=run))).view.run
        assert found is not None
        try:
            await store.commit(Chain("acme", found).adds(1, proof=a_proof()))
            done += 1
        except VersionMoved:
            continue
    await store.close()


async def main(adapter: str, location: str, task: str, *arguments: str) -> None:
    killing = Killing(arguments[0])
    store = ADAPTERS[adapter](location).open(SetClock(), killing)
    if task == "die":
        await die(store, killing, arguments[0])
    else:
        await rival(store, arguments[0], int(arguments[1]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
