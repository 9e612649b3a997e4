"""Which runs nobody has to look at again, noted beside the calls, so that looks for work pass them by.

Rules:
* A run that is opened or resumed has a new epoch, which is not `over`. Once the run is not open under it, it never is
  again: a later resume has a later epoch.
* A parked run that nobody can resume rests: until a time, or for ever, as long as its chain ends where it was read
  (`domain.standing.rests_until`). Whatever happens to it moves the chain, and it is awake again.
* Both are notes: without them each look costs more and finds the same. So no call writes them; the sweeper does, some
  at a time, and each note names what it was read from. A broker that does not know them spoils nothing.
* Where each statement is a round trip there is one for all notes of a kind, and what others hold is left for later: no
  note waits for a call.
* The sweeper goes over those that are awake in turns: some of them may be resumed, but nobody does.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, and_, bindparam, literal_column, or_, select, tuple_, update

from stepgrant_broker.domain.standing import rests_until
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.store import rows, standings
from stepgrant_broker.store.asking import Ask, Plan, ask
from stepgrant_broker.store.queries import Queries, said, words
from stepgrant_broker.store.statements import Text, at_most, by_index
from stepgrant_broker.store.tables.base import AWAKE, HELD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Dialect

    from stepgrant_broker.domain.standing import Standing
    from stepgrant_broker.store.asking import Found
    from stepgrant_broker.store.forgetting import Run
    from stepgrant_broker.store.log import Steps
    from stepgrant_broker.store.statements import Moment

LOOKED_AT: Final = 500
"""Runs, and epochs, of one look."""
PORTION: Final = 100
"""Notes in one transaction of the writer."""
Place = tuple[str, str, str]
"""Tenant, agent and id of a run."""
START: Final[Place] = ("", "", "")
RUNS: Final = rows.RUN.table
EPOCHS: Final = rows.EPOCH.table


@dataclass(frozen=True, slots=True)
class Notes:
    """What was found: epochs that are over, runs that rest (with `seq` and until when), and where to go on."""

    over: tuple[tuple[str, str, int], ...]
    resting: tuple[tuple[str, str, int, int], ...]
    after: Place

    def portions(self) -> Iterator[Notes]:
        """The same in portions."""
        for at in range(0, len(self.over), PORTION):
            yield Notes(self.over[at : at + PORTION], (), self.after)
        for at in range(0, len(self.resting), PORTION):
            yield Notes((), self.resting[at : at + PORTION], self.after)


class AtOnce(Queries):
    """The queries of a store that has one statement for all notes of a kind.

    Both take an array of texts for each member of `Notes.over` and `Notes.resting`, and pass by what others hold.
    """

    def __init__(self, dialect: Dialect, moment: Moment, *, over: Text, rest: Text) -> None:
        super().__init__(dialect, moment)
        self.note_over, self.note_rest = over, rest


class Statements:
    """The statements, compiled for the dialect of these queries."""

    def __init__(self, sql: Queries) -> None:
        gone = or_(EPOCHS.c.epoch < RUNS.c.epoch, ~words(RUNS.c.state, [RunState.OPEN]))
        of_run = and_(RUNS.c.tenant == EPOCHS.c.tenant, RUNS.c.id == EPOCHS.c.run)
        over: Select[Any] = select(EPOCHS.c.tenant, EPOCHS.c.run, EPOCHS.c.epoch).select_from(EPOCHS.join(RUNS, of_run))
        over = by_index(over.where(said(HELD), gone), EPOCHS, "ix_run_epochs_held")
        self.over = sql.text(at_most(by_index(over, RUNS, "sqlite_autoindex_runs_1"), "limit"))
        place = (RUNS.c.tenant, RUNS.c.agent, RUNS.c.id)
        beyond = tuple_(*place) > tuple_(*(bindparam(f"after_{column.name}") for column in place))
        awake = standings.shown(sql.moment("now")).where(said(AWAKE), beyond).order_by(*place)
        self.awake = sql.text(at_most(by_index(awake, RUNS, "ix_runs_awake"), "limit"))
        mine = and_(EPOCHS.c.tenant == bindparam("w_tenant"), EPOCHS.c.run == bindparam("w_run"))
        this = and_(mine, EPOCHS.c.epoch == bindparam("w_epoch"), said(HELD))
        self.note_over = sql.text(update(EPOCHS).where(this).values(over=literal_column("1")))
        read = and_(RUNS.c.tenant == bindparam("w_tenant"), RUNS.c.id == bindparam("w_run"))
        there = and_(read, RUNS.c.seq == bindparam("w_seq"), said(AWAKE))
        rest = {"rests_seq": RUNS.c.seq, "rests_until": bindparam("w_until")}
        self.note_rest = sql.text(update(RUNS).where(there).values(rest))


@functools.cache
def statements(sql: Queries) -> Statements:
    """Compiled once."""
    return Statements(sql)


def look(sql: Queries, after: Place, now: int | None) -> Plan[Notes]:
    """What can be noted now, behind this place."""
    mine = statements(sql)
    place = dict(zip(("after_tenant", "after_agent", "after_id"), after, strict=True))
    asked: Sequence[Ask] = [ask(mine.over, limit=LOOKED_AT), ask(mine.awake, limit=LOOKED_AT, now=now, **place)]
    over, awake = yield asked
    known = list(_readable(awake))
    resting = [(one.run.tenant, one.run.id, one.run.seq, until) for one in known if (until := rests_until(one))]
    last = known[-1].run if known and len(awake) == LOOKED_AT else None
    next_after = START if last is None else (last.tenant, last.agent, last.id)
    return Notes(tuple((tenant, run, epoch) for tenant, run, epoch in over), tuple(resting), next_after)


def _readable(rows_found: Found) -> Iterator[Standing]:
    """One that is damaged stays awake: whoever looks at it is told, and nobody else has to wait for that."""
    for row in rows_found:
        with suppress(rows.RowDamaged):
            yield standings.known(row)


def note(sql: Queries, run: Run, found: Notes) -> int:
    """Write the notes, but for what moved meanwhile; how many."""
    steps = _at_once(sql, found) if isinstance(sql, AtOnce) else _one_by_one(statements(sql), found)
    return sum(run(text, places)[0] for text, places in steps)


def _at_once(sql: AtOnce, found: Notes) -> Steps:
    kinds: tuple[tuple[Text, Sequence[tuple[object, ...]]], ...]
    kinds = (sql.note_over, found.over), (sql.note_rest, found.resting)
    return [(text, tuple(zip(*(map(str, one) for one in notes), strict=True))) for text, notes in kinds if notes]


def _one_by_one(mine: Statements, found: Notes) -> Steps:
    binds: list[tuple[Text, dict[str, object]]] = [
        (mine.note_over, {"w_tenant": tenant, "w_run": id_, "w_epoch": epoch}) for tenant, id_, epoch in found.over
    ]
    binds += [
        (mine.note_rest, {"w_tenant": tenant, "w_run": id_, "w_seq": seq, "w_until": until})
        for tenant, id_, seq, until in found.resting
    ]
    return [(text, text.places(one)) for text, one in binds]
