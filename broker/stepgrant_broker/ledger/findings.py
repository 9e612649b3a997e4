"""What is wrong with a ledger, each with its place.

Codes: `entry_missing`, `entry_changed`, `entry_unreadable`, `entry_unfoldable` (an entry of the chain), `row_differs`,
`row_missing`, `row_orphan` (a table against the fold of its entries), `unreadable` (not even the store can read it),
`payload_changed`, `key_missing`, `key_unusable` (what stands behind commitments), `not_checked` (the run kept changing
while it was read).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect. `run` is `None` for the tenant's own chain; `seq` is set when one entry is to blame."""

    code: str
    tenant: str
    run: str | None
    what: str
    seq: int | None = None

    def __str__(self) -> str:
        chain = self.run or f"tenant {self.tenant}"
        place = chain if self.seq is None else f"{chain} entry {self.seq}"
        return f"{self.code}: {place}: {self.what}"


@dataclass(slots=True)
class Progress:
    """How far a check has come; the same object is given to the callback each time."""

    tenants: int = 0
    runs: int = 0
    entries: int = 0
    payloads: int = 0
