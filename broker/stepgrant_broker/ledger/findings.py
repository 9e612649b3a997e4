"""What is wrong with a ledger: closed kinds, each with the place where it was found.

Rules:
* A place is a row of a table, named by its key: whoever repairs or investigates can look at exactly that.
* A finding shows no value of a row or an entry, which may be personal; it names columns and positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """The kinds. Each says what was compared with what."""

    ENTRY_MISSING = "entry_missing"
    """A chain has a gap."""
    ENTRY_CHANGED = "entry_changed"
    """An entry's bytes are not those that the chain, or the tree, was made of; or it does not follow its neighbour."""
    ENTRY_UNREADABLE = "entry_unreadable"
    """Not the canonical bytes of an entry that is known here."""
    ENTRY_UNFOLDABLE = "entry_unfoldable"
    """Chained rightly, but it says what cannot have happened."""
    ENTRY_DIFFERS = "entry_differs"
    """A column beside the entry's bytes does not say what the bytes say."""
    ROW_DIFFERS = "row_differs"
    ROW_MISSING = "row_missing"
    ROW_ORPHAN = "row_orphan"
    """A table against the fold of its entries: it differs, lacks a row, or has one that no entry made."""
    UNREADABLE = "unreadable"
    """Not even the store can read it."""
    PAYLOAD_CHANGED = "payload_changed"
    PAYLOAD_MISSING = "payload_missing"
    KEY_MISSING = "key_missing"
    KEY_UNUSABLE = "key_unusable"
    NOT_ERASED = "not_erased"
    """What stands behind commitments. `payload_missing`: a value is gone, and no entry tells why. `not_erased`:
    something is left of a run that was erased."""
    NOT_CHECKED = "not_checked"
    """The run kept changing while it was read."""
    LEAF_MISSING = "leaf_missing"
    """The tree has a leaf of which there is no entry."""
    LEAF_TWICE = "leaf_twice"
    """Two entries claim one place in the tree."""
    LEAF_OUTSIDE = "leaf_outside"
    """An entry claims a place that the tree does not have."""
    LEAF_ORDER = "leaf_order"
    """Within a chain, a later entry stands before an earlier one."""
    TILE_CHANGED = "tile_changed"
    TILE_MISSING = "tile_missing"
    """A tile, as anybody may read it, is not what the entries give."""
    TREE_DIFFERS = "tree_differs"
    """The tree's head, the one row of `log`, is not what the entries give."""
    HEAD_UNREADABLE = "head_unreadable"
    HEAD_DIFFERS = "head_differs"
    """A signed head, or the row that it rests in, is not the root of the entries."""
    HEAD_UNSIGNED = "head_unsigned"
    """No key of this log, or none that was good for that head, signed it; or its signature fails."""
    HEAD_MISSING = "head_missing"
    """There are leaves but no signed head."""
    COSIGNATURE_INVALID = "cosignature_invalid"
    QUORUM_MISSING = "quorum_missing"
    """No head at all counts by the log policy."""
    ROLLED_BACK = "rolled_back"
    """A head that somebody keeps elsewhere is of a larger tree."""
    FORKED = "forked"
    """A head that somebody keeps elsewhere is of another tree."""


@dataclass(frozen=True, slots=True)
class Place:
    """A row: its table, and the columns of its key (or the position in the tree) with their values; or a table."""

    table: str
    key: tuple[tuple[str, str | int], ...]

    def __getitem__(self, column: str) -> str | int | None:
        return dict(self.key).get(column)

    def __str__(self) -> str:
        key = ", ".join(f"{name} {value}" for name, value in self.key)
        return f"{self.table} ({key})" if key else self.table

    def plain(self) -> dict[str, str | int]:
        """For JSON."""
        return {"table": self.table, **dict(self.key)}


def row(table: str, **key: str | int) -> Place:
    """Any row."""
    return Place(table, tuple(key.items()))


def entry(tenant: str, run: str | None, seq: int) -> Place:
    """An entry, by its chain."""
    return row("entries", tenant=tenant, chain=run or "", seq=seq)


def leaf(index: int) -> Place:
    """An entry, by its place in the tree."""
    return row("entries", leaf_index=index)


def tile(level: int, number: int) -> Place:
    """A tile."""
    return row("log_tiles", level=level, number=number)


def head(size: int) -> Place:
    """A signed head."""
    return row("log_heads", size=size)


def chain(tenant: str, run: str | None) -> Place:
    """The row that a chain belongs to."""
    return row("tenants", id=tenant) if run is None else row("runs", tenant=tenant, id=run)


TREE: Place = row("log", id=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect. `seq` is set when one entry is to blame, or the first of several."""

    code: Code
    at: Place
    what: str
    seq: int | None = None

    @property
    def tenant(self) -> str | None:
        """Whose it is; `None` for the tree, which is everybody's."""
        return _text(self.at["id"] if self.at.table == "tenants" else self.at["tenant"])

    @property
    def run(self) -> str | None:
        """The run that it is about; `None` for the tenant's own chain and for the tree."""
        name = {"runs": "id", "entries": "chain", "payloads": "chain"}.get(self.at.table, "run")
        return _text(self.at[name]) or None

    def __str__(self) -> str:
        return f"{self.code.value}: {self.at}: {self.what}"

    def plain(self) -> Mapping[str, object]:
        """For JSON."""
        return {
            "code": self.code.value,
            "tenant": self.tenant,
            "run": self.run,
            "seq": self.seq,
            "at": self.at.plain(),
            "what": self.what,
        }


def _text(value: str | int | None) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(slots=True)
class Progress:
    """How far a check has come; the same object is given to the callback each time.

    `waiting`: entries that no leaf stands for yet. `unsigned`: leaves that no signed head covers yet. `counted`: the
    size of the largest head that counts.
    """

    tenants: int = 0
    runs: int = 0
    entries: int = 0
    payloads: int = 0
    leaves: int = 0
    tiles: int = 0
    heads: int = 0
    cosignatures: int = 0
    waiting: int = 0
    unsigned: int = 0
    counted: int = 0
