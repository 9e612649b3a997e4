"""The statements of the log, and what it reads and appends, as plans and work for the writer's thread.

Rules:
* Appending compares the head and every leaf by row counts, in one transaction: whoever comes late leaves nothing.
* On PostgreSQL an advisory lock stands before that, so that two sequencers do not wait for each other's rows.
* Publishing a head again adds signatures and takes none away: of two sequencers that were given different cosignatures
  the later one must not undo what made the head count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import ColumnElement, and_, bindparam, literal_column, or_, select, update
from sqlalchemy import Table as CoreTable
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from stepgrant import tlog
from stepgrant.tlog.tiles import HEIGHT
from stepgrant_broker.domain.log import Growth, Leaf, SignedHead, Tail, TreeHead
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.store import tables
from stepgrant_broker.store.asking import Ask, Plan, ask
from stepgrant_broker.store.forgetting import Run
from stepgrant_broker.store.statements import ENTRIES, Text, at_most, by_index, compile_for
from stepgrant_broker.store.tables.base import INTEGRATED, WAITING

LOG: Final = cast("CoreTable", vars(tables.LogRow)["__table__"])
TILES: Final = cast("CoreTable", vars(tables.LogTileRow)["__table__"])
HEADS: Final = cast("CoreTable", vars(tables.LogHeadRow)["__table__"])
MAX_LEVELS: Final = 7
TRIES: Final = 10
Steps: TypeAlias = list[tuple[Text, tuple[Any, ...]]]
Marking: TypeAlias = Callable[["LogStatements", int, Sequence[Leaf]], Steps]
"""The statements that give leaves their indexes, the first one this; together they touch one row for each."""


class LogStatements:
    """The statements, compiled for a dialect. `insert`: the dialect's own. `lock`: tried first; true if it is held."""

    def __init__(
        self, dialect: Dialect, insert: Callable[[CoreTable], Any], marking: Marking, lock: Text | None = None
    ) -> None:
        self._dialect = dialect
        self.marking = marking
        self.lock = lock
        head = (LOG.c.size, LOG.c.root, LOG.c.ts)
        self.origin = self._text(select(LOG.c.origin))
        self.head = self._text(select(*head))
        self.begin = self._text(insert(LOG).on_conflict_do_nothing(), ["id", "origin", "size", "root", "ts"])
        waiting = (
            select(ENTRIES.c.tenant, ENTRIES.c.chain, ENTRIES.c.seq, ENTRIES.c.hash)
            .where(literal_column(WAITING))
            .order_by(ENTRIES.c.ts, ENTRIES.c.tenant, ENTRIES.c.chain, ENTRIES.c.seq)
        )
        self.waiting = self._text(at_most(by_index(waiting, ENTRIES, "ix_entries_waiting"), "limit"))
        self._of_tiles(insert)
        self._of_heads(insert)
        named = update(LOG).where(or_(LOG.c.origin == bindparam("w_before"), LOG.c.origin == bindparam("w_after")))
        self.rename = self._text(named, ["origin"])
        moving = update(LOG).where(LOG.c.size == bindparam("w_size"), LOG.c.root == bindparam("w_root"))
        self.move = self._text(moving, ["size", "root", "ts"])
        chain = and_(ENTRIES.c.tenant == bindparam("w_tenant"), ENTRIES.c.chain == bindparam("w_chain"))
        stretch = ENTRIES.c.seq.between(bindparam("w_first"), bindparam("w_last"))
        indexes: ColumnElement[int] = ENTRIES.c.seq + bindparam("w_shift")
        marked = update(ENTRIES).where(chain, stretch, literal_column(WAITING)).values(leaf_index=indexes)
        self.mark = self._text(marked, ())
        leaves = (
            select(ENTRIES.c.hash)
            .where(literal_column(INTEGRATED), ENTRIES.c.leaf_index >= bindparam("first"))
            .where(ENTRIES.c.leaf_index < bindparam("end"))
            .order_by(ENTRIES.c.leaf_index)
        )
        self.leaves = self._text(by_index(leaves, ENTRIES, "ix_entries_leaf"))

    def _text(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> Text:
        return compile_for(self._dialect, statement, columns)

    def _of_tiles(self, insert: Callable[[CoreTable], Any]) -> None:
        size = select(LOG.c.size).scalar_subquery()
        # The tile with the ragged edge of its level: the number of full ones below it. Shifted, not divided: a quotient
        # is a float in one of the two databases.
        ragged = [
            and_(
                TILES.c.level == literal_column(str(level)),
                TILES.c.number == size.op(">>")(literal_column(str(HEIGHT * (level + 1)))),
            )
            for level in range(MAX_LEVELS)
        ]
        self.edge = self._text(select(TILES.c.level, TILES.c.data).where(or_(*ragged)))
        self.tile = self._text(
            select(TILES.c.data).where(TILES.c.level == bindparam("level"), TILES.c.number == bindparam("number"))
        )
        put = insert(TILES)
        self.put_tile = self._text(
            put.on_conflict_do_update(index_elements=["level", "number"], set_={"data": put.excluded.data}),
            ["level", "number", "data"],
        )

    def _of_heads(self, insert: Callable[[CoreTable], Any]) -> None:
        columns = (HEADS.c.size, HEADS.c.root, HEADS.c.ts, HEADS.c.note)
        newest = select(*columns).order_by(HEADS.c.size.desc())
        self.newest = self._text(newest.limit(literal_column("1")).offset(literal_column("0")))
        self.published = self._text(select(*columns).where(HEADS.c.size == bindparam("size")))
        after = select(*columns).where(HEADS.c.size > bindparam("size")).order_by(HEADS.c.size)
        self.published_after = self._text(at_most(after, "limit"))
        before = select(*columns).where(HEADS.c.size < bindparam("size")).order_by(HEADS.c.size.desc())
        self.published_before = self._text(at_most(before, "limit"))
        put = insert(HEADS)
        self.publish = self._text(
            put.on_conflict_do_update(
                index_elements=["size"],
                set_={"note": put.excluded.note},
                where=and_(HEADS.c.root == put.excluded.root, HEADS.c.note == bindparam("w_note")),
            ),
            ["size", "root", "ts", "note"],
        )


def by_stretch(sql: LogStatements, first: int, leaves: Sequence[Leaf]) -> Steps:
    """A statement for each stretch of a chain, where asking costs nothing. What one call wrote is one stretch."""
    steps: Steps = []
    start = 0
    for end, last in enumerate(leaves, 1):
        one, after = leaves[start], leaves[end] if end < len(leaves) else None
        if after is None or (after.tenant, after.chain, after.seq) != (last.tenant, last.chain, last.seq + 1):
            binds = {"w_tenant": one.tenant, "w_chain": one.chain, "w_first": one.seq, "w_last": last.seq}
            steps.append((sql.mark, sql.mark.places({**binds, "w_shift": first + start - one.seq})))
            start = end
    return steps


def tail(sql: LogStatements, limit: int) -> Plan[Tail]:
    """The end of the tree, and the leaves that wait."""
    heads, edge, waiting = yield [ask(sql.head), ask(sql.edge), ask(sql.waiting, limit=limit)]
    head = TreeHead(*heads[0]) if heads else TreeHead()
    return Tail(head, {level: bytes(data) for level, data in edge}, tuple(Leaf(*row) for row in waiting))


def tiles_at(sql: LogStatements, wanted: Sequence[tuple[int, int]]) -> Plan[dict[tuple[int, int], bytes]]:
    """The tiles that are there."""
    asked: list[Ask] = [ask(sql.tile, level=level, number=number) for level, number in wanted]
    answers = yield asked
    return {place: bytes(found[0][0]) for place, found in zip(wanted, answers, strict=True) if found}


def leaves_from(sql: LogStatements, first: int, count: int) -> Plan[tuple[bytes, ...]]:
    """Hashes of entries by leaf index."""
    (found,) = yield [ask(sql.leaves, first=first, end=first + count)]
    return tuple(bytes(one) for (one,) in found)


def published(sql: LogStatements, size: int | None) -> Plan[SignedHead | None]:
    """The newest signed head, or one of this size."""
    (found,) = yield [ask(sql.newest) if size is None else ask(sql.published, size=size)]
    return SignedHead(*found[0]) if found else None


def heads(text: Text, size: int, limit: int) -> Plan[tuple[SignedHead, ...]]:
    """Signed heads on one side of a size."""
    (found,) = yield [ask(text, size=size, limit=limit)]
    return tuple(SignedHead(*row) for row in found)


def begin(sql: LogStatements, run: Run, origin: str, root: bytes) -> str:
    """The log's origin, this one if it has none."""
    run(sql.begin, sql.begin.places({"id": 1, "origin": origin, "size": 0, "root": root, "ts": 0}))
    _, found = run(sql.origin, ())
    return str(found[0][0])


def append(sql: LogStatements, run: Run, growth: Growth) -> None:
    """Give the leaves their indexes, keep the tiles, move the head. Raises `VersionMoved`, with nothing to be kept."""
    if sql.lock is not None:
        _, held = run(sql.lock, ())
        if not held or not held[0][0]:
            raise VersionMoved("another sequencer is at work")
    before, after = growth.before, growth.after
    moved, _ = run(
        sql.move,
        sql.move.places(
            {"size": after.size, "root": after.root, "ts": after.ts, "w_size": before.size, "w_root": before.root}
        ),
    )
    if moved != 1:
        raise VersionMoved("the tree is not where it was read")
    steps = sql.marking(sql, before.size, growth.leaves)
    if sum(run(text, places)[0] for text, places in steps) != len(growth.leaves):
        raise VersionMoved("an entry has a leaf index already")
    for (level, number), data in growth.tiles.items():
        run(sql.put_tile, sql.put_tile.places({"level": level, "number": number, "data": data}))


def rename(sql: LogStatements, run: Run, before: str, after: str) -> None:
    """Give the log another name. Raises `VersionMoved` if it has neither of the two."""
    changed, _ = run(sql.rename, sql.rename.places({"origin": after, "w_before": before, "w_after": after}))
    if changed != 1:
        raise VersionMoved("the log has a third name")


def publish(sql: LogStatements, run: Run, head: SignedHead, origin: str | None) -> SignedHead:
    """Keep a signed head, with all signatures that were kept of it before; the head as it is then.

    Raises `VersionMoved` if one of this size has another root, or the log is not called so.
    """
    if origin is not None:
        _, names = run(sql.origin, ())
        if not names or names[0][0] != origin:
            raise VersionMoved("the log has another name by now: the store was restored beside this process")
    for _ in range(TRIES):
        _, found = run(sql.published, sql.published.places({"size": head.size}))
        before = SignedHead(*found[0]) if found else None
        if before is not None and before.root != head.root:
            raise VersionMoved("a head of this size with another root was signed before")
        kept = head if before is None else replace(before, note=_joined(head.note, bytes(before.note)))
        binds = {"size": kept.size, "root": kept.root, "ts": kept.ts, "note": kept.note}
        changed, _ = run(sql.publish, sql.publish.places({**binds, "w_note": b"" if before is None else before.note}))
        if changed == 1:
            return kept
        # Another sequencer has published it between the two statements.
    raise VersionMoved("others publish this head at every try")


def _joined(note: bytes, before: bytes) -> bytes:
    """The note, and what was signed before on the very same text. What cannot be read, or has another text, goes."""
    try:
        made, older = tlog.read_note(note), tlog.read_note(before)
    except tlog.NoteInvalid:
        return note
    if older.text != made.text:
        return note
    known = {(one.name, one.key_id) for one in made.signatures}
    more = [one for one in older.signatures if (one.name, one.key_id) not in known]
    return tlog.Note(made.text, (*made.signatures, *more)).encoded()
