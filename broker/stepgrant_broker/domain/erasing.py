"""Erasing a run: the key of its chain and everything behind its commitments are destroyed; entries and tree stay.

Rules:
* Only what has ended is erased: a run that goes on needs its input and its results.
* Handles of credentials outside are needed until their issuers have confirmed that they are dead.
* Whoever erased it stands in clear, by identifier: what the entry would commit to could never be opened.
"""

from __future__ import annotations

from typing import Final

from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import Conflict
from stepgrant_broker.domain.grants import is_open
from stepgrant_broker.domain.journal import Journal

RETENTION: Final = "retention"
"""The `cause` of a run that was erased because its time of keeping is over."""


class RunNotEnded(Conflict):
    """The run goes on; what is asked for needs one that has ended."""

    code = "run_not_ended"


class LeasesNotConfirmed(Conflict):
    """Credentials outside are not confirmed dead yet, and what names them there is needed until then."""

    code = "leases_not_confirmed"


def erase(journal: Journal, *, operator: str | None = None, cause: str | None = None) -> None:
    """Write that the run is erased. Raises `RunNotEnded`, `LeasesNotConfirmed`.

    The view has all grants that are open. `operator` is the identifier of the person who asked.
    """
    run = journal.run
    if not run.state.ended:
        raise RunNotEnded("the run has not ended; end it first, or let it come to its end", field="run")
    left = [grant.jti for grant in journal.view.grants.values() if is_open(grant)]
    if left:
        raise LeasesNotConfirmed(
            f"{len(left)} credentials of this run are not confirmed dead; their handles are needed until then",
            field="run",
        )
    journal.add(EntryType.RUN_ERASED, body={} if operator is None else {"operator": operator}, cause=cause)
