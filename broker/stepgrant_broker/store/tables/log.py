"""The log over all chains. It belongs to no tenant: what stands here are hashes of hashes, and signatures over them."""

from __future__ import annotations

from stepgrant_broker.store.tables.base import Table, big, blob


class LogRow(Table, table=True):
    """The tree's one head, under `id` 1; every append compares it and moves it."""

    __tablename__ = "log"
    id: int = big(primary_key=True, sa_column_kwargs={"autoincrement": False})
    origin: str
    size: int = big()
    root: bytes = blob()
    ts: int = big()


class LogTileRow(Table, table=True):
    """Tile `number` of `level` (C2SP tlog-tiles): up to 256 hashes; once full it never changes."""

    __tablename__ = "log_tiles"
    level: int = big(primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: int = big(primary_key=True, sa_column_kwargs={"autoincrement": False})
    data: bytes = blob()


class LogHeadRow(Table, table=True):
    """A signed head. `note` is the signed note with its cosignatures."""

    __tablename__ = "log_heads"
    size: int = big(primary_key=True, sa_column_kwargs={"autoincrement": False})
    root: bytes = blob()
    ts: int = big()
    note: bytes = blob()
