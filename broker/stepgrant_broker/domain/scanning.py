"""What a check of the whole database reads beside `Reads`: rows past their chains, as they rest.

Everything else is looked for by its tenant and run; a row that belongs to nobody would never be seen that way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stepgrant_broker.domain.state import Epoch, Run
from stepgrant_broker.domain.writes import Operator


@dataclass(frozen=True, slots=True)
class RawEntry:
    """A row of `entries`, column by column, with nothing believed. `chain` is empty for a tenant's own chain."""

    tenant: str
    chain: str
    seq: int
    type: str
    step: str | None
    ts: int
    hash: bytes
    data: bytes
    leaf_index: int | None

    @property
    def run(self) -> str | None:
        """The run of its chain."""
        return self.chain or None


@dataclass(frozen=True, slots=True)
class Stray:
    """A row that is not as others say: its table, its key, and which columns are wrong (none: all of it)."""

    table: str
    key: tuple[tuple[str, str | int], ...]
    columns: tuple[str, ...] = ()


class Scans(Protocol):
    """All raise `StoreUnavailable`, and none opens a payload."""

    async def run_row(self, tenant: str, run: str) -> tuple[Run | None, tuple[Epoch, ...]]:
        """The run's row and its epochs."""

    async def people(self, tenant: str) -> tuple[Operator, ...]:
        """All people of a tenant, without their names; removed ones too."""

    async def leaves_between(self, first: int, end: int) -> tuple[RawEntry, ...]:
        """Entries whose leaf index is in this range, by index; more than one for an index, if somebody made it so."""

    async def leaves_outside(self, size: int) -> tuple[RawEntry, ...]:
        """Entries whose leaf index neither this tree has nor the one of now, a few of them."""

    async def entries_waiting(self, after: RawEntry | None, limit: int) -> tuple[RawEntry, ...]:
        """Entries without a leaf index, behind this one."""

    async def strays(self) -> tuple[Stray, ...]:
        """Rows of tenants or runs that have no row, a few of each table."""

    async def misderived(self, table: str, after: tuple[str, ...] | None, limit: int) -> DerivedPage:
        """Rows of `steps` or `grants` whose derived columns are not what the others give."""


@dataclass(frozen=True, slots=True)
class DerivedPage:
    """A page of a table: what is wrong in it, and the key to go on behind (`None`: that was all)."""

    wrong: tuple[Stray, ...]
    next: tuple[str, ...] | None
