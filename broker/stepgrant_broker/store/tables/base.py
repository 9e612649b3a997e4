"""What all tables share: their own metadata with names for every constraint, and the column types."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Connection, ForeignKeyConstraint, Index, LargeBinary, MetaData, SmallInteger, text
from sqlalchemy.event import listens_for
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
UNENDED: Final = "ended_at IS NULL"
ABOUT_KEYS: Final = "type IN ('key_rotated', 'key_revoked')"
KEPT: Final = "ended_at IS NOT NULL AND erased_at IS NULL"
HELD: Final = "over = 0"
AWAKE: Final = "state = 'parked' AND rests_seq <> seq"
RESTING: Final = "state = 'parked' AND rests_seq = seq"
ASKED: Final = "status = 'pending'"
UNFINISHED: Final = "done = 0"
WAITING: Final = "leaf_index IS NULL"
INTEGRATED: Final = "leaf_index IS NOT NULL"
OPEN: Final = "is_open = 1"
LIVE: Final = "live_until > 0"
PENDING: Final = f"{OPEN} OR {LIVE}"
DUE: Final = "due_at > 0"
PASSING: Final = "expires_at IS NOT NULL"
CALLED: Final = "state = 'completed' AND id_source = 'call_id'"
"""Conditions of partial indexes. A query uses such an index only if it says the same, so both take it from here."""

METADATA: Final = MetaData(naming_convention=NAMING)


class Table(SQLModel, registry=registry(metadata=METADATA)):
    """The parent of all tables; its metadata is apart from SQLModel's own, which other packages share."""


def pk() -> Any:  # noqa: ANN401 - SQLModel's Field says Any as well
    """A text column of the primary key."""
    return Field(primary_key=True)


def big(**options: Any) -> Any:  # noqa: ANN401 - as above
    """A 64-bit integer: times in milliseconds, sequence numbers, counts."""
    return Field(sa_type=BigInteger, **options)


def maybe_big() -> Any:  # noqa: ANN401 - as above
    """A 64-bit integer or NULL."""
    return Field(default=None, sa_type=BigInteger)


def flag(**options: Any) -> Any:  # noqa: ANN401 - as above
    """A derived 0 or 1. No BOOLEAN: an index's condition must read the same in SQLite and PostgreSQL."""
    return Field(sa_type=SmallInteger, **options)


def blob(**options: Any) -> Any:  # noqa: ANN401 - as above
    """Bytes."""
    return Field(sa_type=LargeBinary, **options)


ONE_TREE: Final = {"sqlite_with_rowid": False}
"""For tables whose rows are small: SQLite then keeps row and key in one tree, and a commit writes fewer pages."""


def of_run(column: str = "run") -> ForeignKeyConstraint:
    """Rows of a run cannot stand without it."""
    return ForeignKeyConstraint(["tenant", column], ["runs.tenant", "runs.id"])


def where(name: str, condition: str, *columns: str, unique: bool = False) -> Index:
    """An index over the rows that meet the condition."""
    return Index(name, *columns, unique=unique, sqlite_where=text(condition))


@listens_for(METADATA, "before_create")
def _conditions_for_postgres(metadata: MetaData, connection: Connection, **_: object) -> None:
    """The same conditions there: to name PostgreSQL above loads its dialect, 0.05 s of each start on SQLite."""
    if connection.dialect.name == "postgresql":
        for index in [index for table in metadata.tables.values() for index in table.indexes]:
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
