"""A receipt's place in the log: proofs for all its entries under one head that counts (`stepgrant._receipt_log`).

An entry is integrated within a second of its commit; who asks sooner has the sequencer make a round, and waits a
little. Without enough witnesses no head counts: the receipt is then given without its place, which it says.
"""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any, Final

from stepgrant import merkle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from stepgrant_broker.domain.reads import StoredEntry
    from stepgrant_broker.ledger.public_log import PublicLog

PATIENCE_S: Final = 2.0
PAUSE_S: Final = 0.05


async def place(
    log: PublicLog, stored: Sequence[StoredEntry], again: Callable[[], Awaitable[Sequence[StoredEntry]]]
) -> dict[str, Any] | None:
    """The member `log` of a receipt of these entries; None if they are under no head that counts in time.

    `again` reads the entries anew. Raises `StoreUnavailable`, `SignerUnavailable`.
    """
    end = time.monotonic() + PATIENCE_S
    indexes = [entry.leaf_index for entry in stored]
    while True:
        counted = log.counted
        known = [index for index in indexes if index is not None]
        if counted is not None and len(known) == len(indexes) and max(known) < counted.size:
            break
        if time.monotonic() > end:
            return None
        if not await log.catch_up():
            await asyncio.sleep(PAUSE_S)
        indexes = [entry.leaf_index for entry in (await again())[: len(stored)]]
    wanted = [merkle.inclusion_ranges(index, counted.size) for index in known]
    proofs = await log.proofs(wanted, counted.size)
    return {
        "checkpoint": counted.note.decode(),
        "proofs": [
            {"index": index, "hashes": [base64.b64encode(one).decode("ascii") for one in proof]}
            for index, proof in zip(known, proofs, strict=True)
        ],
    }
