"""Hot reload: look at a policy folder again and again, and say what changed.

Rules:
* A change is read only after the folder kept still for one round, because editors write in several steps.
* Both callbacks are awaited in turn. `changed` may raise `PolicyInvalid`, which then goes to `broken` too; whoever is
  called decides what stays in force (`EmbeddedEngine.load` keeps the last good policy).
* What is broken is told once, until it changes again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from stepgrant_broker.policy.bundle import Bundle, read_directory
from stepgrant_broker.policy.findings import PolicyInvalid

INTERVAL_S: Final = 0.3

Signature: TypeAlias = tuple[tuple[str, int, int], ...]


async def watch(
    root: Path,
    *,
    changed: Callable[[Bundle], Awaitable[None]],
    broken: Callable[[PolicyInvalid], Awaitable[None]],
    known: str | None = None,
    interval_s: float = INTERVAL_S,
) -> None:
    """Watch until cancelled. `known` is the digest that is already active; only another one is a change."""
    read: Signature | None = None
    before: Signature | None = None
    while True:
        now = await asyncio.to_thread(_signature, root)
        if now == before and now != read:
            read = now
            try:
                bundle = await asyncio.to_thread(read_directory, root)
                if bundle.digest != known:
                    await changed(bundle)
                    known = bundle.digest
            except PolicyInvalid as invalid:
                # So that going back to the text that is active is told as a change, too.
                known = None
                await broken(invalid)
        before = now
        await asyncio.sleep(interval_s)


def _signature(root: Path) -> Signature:
    found: list[tuple[str, int, int]] = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            try:
                status = path.stat()
            except OSError:
                # Gone between listing and looking: the next round sees it.
                continue
            found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(sorted(found))
