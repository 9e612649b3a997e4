"""A broker's store in a process of its own, whose disk fails: RLIMIT_FSIZE refuses to let any file grow.

Usage: faulty.py PATH. Prints one JSON object: what each commit met before, while and after the disk was full.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from conformance.store.making import Chain, SetClock, a_payload, a_proof
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.store.sqlite import SqliteStore


async def attempt(store: SqliteStore, chain: Chain) -> str:
    try:
        await store.commit(chain.adds(1, proof=a_proof(), payloads=(a_payload(b"x" * 400_000),)))
    except StoreUnavailable as fault:
        return fault.detail
    return "ok"


async def main(path: Path) -> None:
    store = SqliteStore(path, clock=SetClock())
    before, during, after = Chain.of_run(), [Chain.of_run() for _ in range(3)], Chain.of_run()
    met = {"before": await attempt(store, before)}
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, most))
    met["during"] = "|".join([await attempt(store, chain) for chain in during])
    known = (await store.load(Query("acme", run=before.run))).view.run
    met["read"] = "ok" if known == before.row else "lost"
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    met["after"] = await attempt(store, after)
    met["known"] = ",".join(
        [
            str((await store.load(Query("acme", run=chain.run))).view.run is not None)
            for chain in (before, *during, after)
        ]
    )
    await store.close()
    print(json.dumps(met))  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
