"""Folding entries gives the tables: `apply(view, entry) → view`, one small function per entry type.

Rules:
* Use cases never write a row by hand: they seal entries, fold them, and write the rows that changed. So nothing that
  matters can stand outside the hash, and an auditor who folds the same entries gets the same rows.
* A fold never refuses and never decides: the machines in `runs.py`, `steps.py` and `approvals.py` did that before.
* A view may be partial (one step of a run); an entry touches only what its use case loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from stepgrant_broker.domain.entries import Entry, EntryType
from stepgrant_broker.domain.fold import approvals, grants, lost_ids, runs, steps
from stepgrant_broker.domain.fold.common import At
from stepgrant_broker.domain.state import View

Folder: TypeAlias = Callable[["View", At], "View"]

FOLDERS: Final[Mapping[EntryType, Folder]] = {
    EntryType.RUN_OPENED: runs.opened,
    EntryType.RUN_RESUMED: runs.resumed,
    EntryType.RUN_PARKED: runs.parked,
    EntryType.RUN_QUARANTINED: runs.quarantined,
    EntryType.RUN_RELEASED: runs.released,
    EntryType.RUN_RESTORED: runs.restored,
    EntryType.RUN_ENDED: runs.ended,
    EntryType.RUN_ERASED: runs.erased,
    EntryType.STEP_PREPARED: steps.prepared,
    EntryType.DECISION: steps.decided,
    EntryType.STEP_RECORDED: steps.recorded,
    EntryType.STEP_REPLAYED: steps.replayed,
    EntryType.STEP_ADOPTED: lost_ids.adopted,
    EntryType.DUPLICATE_DECIDED: lost_ids.duplicate_decided,
    EntryType.STEP_COMPLETED: steps.completed,
    EntryType.STEP_FAILED: steps.failed,
    EntryType.STEP_SUSPENDED: steps.suspended,
    EntryType.STEP_IN_DOUBT: steps.in_doubt,
    EntryType.STEP_RECONCILED: steps.reconciled,
    EntryType.APPROVAL_REQUESTED: approvals.requested,
    EntryType.APPROVAL_DECIDED: approvals.decided,
    EntryType.GRANT_ISSUED: grants.issued,
    EntryType.GRANT_FAILED: grants.failed,
    EntryType.LEASE_RECORDED: grants.lease_recorded,
    EntryType.GRANT_REDEEMED: grants.redeemed,
    EntryType.GRANT_REVOKED: grants.revoked,
}


def apply(view: View, entry: Entry) -> View:
    """The view after one entry of its run. Types without a folder only move the chain's head."""
    at = At(entry)
    folder = FOLDERS.get(entry.type)
    after = folder(view, at) if folder else view
    return runs.advance(after, at)


def apply_all(view: View, entries: Iterable[Entry]) -> View:
    """The view after these entries, in order."""
    for entry in entries:
        view = apply(view, entry)
    return view
