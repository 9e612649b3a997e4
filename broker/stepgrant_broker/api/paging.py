"""The queries of lists: what may stand behind the question mark, closed like bodies."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stepgrant_broker.api.shapes_runs import RunState
from stepgrant_broker.domain.reads import Page

Limit = Annotated[int, msgspec.Meta(ge=1, le=500)]
Cursor = Annotated[str, msgspec.Meta(min_length=1, max_length=600)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Position = Annotated[int, msgspec.Meta(ge=-1, le=2**53 - 1)]

ApprovalStatus = Literal["pending", "approved", "denied", "expired", "consumed", "void"]


class PageQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A page: at most `limit` rows after the cursor `after` (the `next` of the page before)."""

    limit: Limit = 100
    after: Cursor | None = None


class RunQuery(PageQuery, frozen=True):
    """Runs, of one agent, in one state, or only those that somebody should go on with now (oldest first)."""

    agent: Name | None = None
    state: RunState | None = None
    resumable: bool = False


class GrantQuery(PageQuery, frozen=True):
    """Grants, of one run, or only those that are live."""

    run: Name | None = None
    live: bool = False


class ApprovalQuery(PageQuery, frozen=True):
    """Approvals, of one run or of one status."""

    run: Name | None = None
    status: ApprovalStatus | None = None


class ReceiptQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the receipt is about: the whole run, one step of it, or one grant."""

    step: str | None = None
    grant: str | None = None


class EntryQuery(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Entries with `seq` above `after`."""

    limit: Limit = 500
    after: Position = -1


def page_of(query: PageQuery) -> Page:
    """The domain's page."""
    return Page(query.limit, query.after)
