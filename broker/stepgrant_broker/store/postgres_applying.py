"""One write set for PostgreSQL, as statements with what each must have done.

Rules:
* The order is that of `applying.py`, and so is what a refused set is answered.
* Everything is known before anything is sent: a set, or a whole batch of them, is one round trip.
* Locks come first and in one order for all: guards, runs, tenants. Whoever waits holds nothing that another one needs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain as joined
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.refusals import AnswerTaken, GuardMoved, ProofReplayed, VersionMoved
from stepgrant_broker.domain.state import Run
from stepgrant_broker.domain.writes import Tenant
from stepgrant_broker.store import rows
from stepgrant_broker.store.applying import destruction, entry_rows, in_portions, payload_rows, run_move, tenant_move
from stepgrant_broker.store.asking import Ask
from stepgrant_broker.store.breaking import AFTER, AFTER_ENTRIES, AFTER_PROOF, AFTER_ROW
from stepgrant_broker.store.faults import WriteSetMalformed
from stepgrant_broker.store.postgres_sql import (
    GUARD_OR_FAILS,
    GUARDED,
    LOCK_RUNS,
    LOCK_TENANTS,
    OR_FAILS,
    RAISING,
    SEQ_OR_FAILS,
    WRITES,
)
from stepgrant_broker.store.statements import FIXED, Text

if TYPE_CHECKING:
    from stepgrant_broker.domain.writes import Row, WriteSet
    from stepgrant_broker.store.postgres_link import Answer

POINTS: Final[Mapping[Text, str]] = {
    WRITES.proof: AFTER_PROOF,
    **{text: AFTER.get(kind, AFTER_ROW) for kind, text in WRITES.whole.items()},
    **dict.fromkeys(WRITES.entries.values(), AFTER_ENTRIES),
}
"""The failpoint behind a statement, as behind the same rows in SQLite."""

GUARDS: Final = 0x57E9
"""The class of our advisory locks; others of the same server's database may have theirs."""


class Part(NamedTuple):
    """A statement, and the refusal when it did not do what it must.

    `other`: the statement that fails then instead, if it is not the same with other words.
    """

    ask: Ask
    wrong: Callable[[Answer], Exception | None]
    other: Ask | None = None

    @property
    def or_fails(self) -> Ask:
        """The statement as one that ends its transaction where it does not do what it must."""
        if self.other is not None:
            return self.other
        text = OR_FAILS.get(self.ask.text)
        return self.ask if text is None else Ask(text, self.ask.places)


def locks(sets: Sequence[WriteSet], *, lone: bool) -> list[Ask]:
    """What must be locked before these sets are applied, in the order that all keep.

    `lone`: the only set's own move comes first and is the lock (`alone`).
    """
    raised = {writes.tenant for writes in sets if writes.raise_guard}
    compared = {writes.tenant for writes in sets if writes.guard is not None} - raised
    guards = sorted((_number(tenant), RAISING if tenant in raised else GUARDED) for tenant in raised | compared)
    asks = [Ask(text, (GUARDS, number)) for number, text in guards]
    runs = sorted({(writes.tenant, writes.run) for writes in sets if writes.run is not None})
    if runs and not lone:
        asks.append(Ask(LOCK_RUNS, (tuple(tenant for tenant, _ in runs), tuple(run for _, run in runs))))
    tenants = sorted({writes.tenant for writes in sets if writes.run is None or writes.raise_guard})
    if tenants:
        asks.append(Ask(LOCK_TENANTS, (tuple(tenants),)))
    return asks


def _number(tenant: str) -> int:
    """A tenant's lock, as a signed 32-bit number; two tenants that share one only wait for each other."""
    return zlib.crc32(tenant.encode()) - 2**31


def parts(writes: WriteSet, now: int | None) -> Iterator[Part]:
    """The set in the order in which it is refused."""
    yield from _before(writes)
    yield _chain(writes)
    yield from _behind(writes, now)
    yield from _writes(writes)


def alone(writes: WriteSet, now: int | None) -> Iterator[Part]:
    """The set with its chain first, which locks it. Which of its refusals is the answer, this order cannot say."""
    yield _chain(writes)
    yield from _before(writes)
    yield from _behind(writes, now)
    yield from _writes(writes)


def _stands(seq: int) -> Callable[[Answer], Exception | None]:
    def wrong(answer: Answer) -> Exception | None:
        return None if (answer.rows[0][0] if answer.rows else 0) == seq else _tenant_moved(answer)

    return wrong


def _run_moved(answer: Answer) -> Exception | None:
    return None if answer.changed else VersionMoved("the run is not where it was read")


def _run_gone(answer: Answer) -> Exception | None:
    return None if answer.rows else VersionMoved("the run is not where it was read")


def _tenant_moved(answer: Answer) -> Exception | None:
    return None if answer.changed else VersionMoved("the tenant's chain is not where it was read")


def _replayed(answer: Answer) -> Exception | None:
    return None if answer.changed else ProofReplayed("the proof was used before")


def _taken(answer: Answer) -> Exception | None:
    return None if answer.changed else AnswerTaken("an equal call was answered beside this one")


def _fine(_: Answer) -> Exception | None:
    return None


def _guard(expected: int) -> Callable[[Answer], Exception | None]:
    def wrong(answer: Answer) -> Exception | None:
        found = answer.rows[0][1] if answer.rows else 0
        return None if found == expected else GuardMoved("the kill switch was thrown since the tenant was read")

    return wrong


def _fixed(kind: type[Any]) -> Callable[[Answer], Exception | None]:
    def wrong(answer: Answer) -> Exception | None:
        if answer.changed:
            return None
        return WriteSetMalformed(f"a {kind.__name__} may not change {', '.join(FIXED[kind])}")

    return wrong


_FIXED: Final = {kind: _fixed(kind) for kind in rows.WHOLE}


def _before(writes: WriteSet) -> list[Part]:
    """Proof and guard."""
    found: list[Part] = []
    if writes.proof is not None:
        found.append(Part(Ask(WRITES.proof, rows.PROOF.places(writes.proof)), _replayed))
    if writes.guard is not None:
        stands = Ask(WRITES.tenant_stands, (writes.tenant,))
        found.append(Part(stands, _guard(writes.guard), Ask(GUARD_OR_FAILS, (writes.tenant, writes.guard))))
    return found


def _behind(writes: WriteSet, now: int | None) -> list[Part]:
    """The raised guard, and the stored answer."""
    found: list[Part] = []
    if writes.raise_guard:
        raised = rows.TENANT.encode(Tenant(writes.tenant, 0, GENESIS, 0, guard=1))
        found.append(Part(Ask(WRITES.guard_raise, WRITES.guard_raise.places(raised)), _fine))
    if writes.answer is not None:
        found.append(Part(Ask(WRITES.answer, (*rows.ANSWER.places(writes.answer), now)), _taken))
    return found


def _chain(writes: WriteSet) -> Part:
    """The compare-and-move of the set's chain."""
    if writes.run is None:
        text, places = tenant_move(WRITES, writes)
        if text is WRITES.tenant_stands:
            there = Ask(SEQ_OR_FAILS, (writes.tenant, writes.expect_seq))
            return Part(Ask(text, places), _stands(writes.expect_seq), there)
        return Part(Ask(text, places), _tenant_moved)
    text, places = run_move(WRITES, writes, writes.run)
    return Part(Ask(text, places), _run_gone if text is WRITES.run_stands else _run_moved)


def _writes(writes: WriteSet) -> Iterator[Part]:
    for row in writes.rows:
        if not isinstance(row, Run | Tenant):
            yield _row(row)
    for texts, rows_of in ((WRITES.entries, entry_rows), (WRITES.payloads, payload_rows)):
        for some in in_portions(rows_of(writes)):
            yield Part(Ask(texts[len(some)], tuple(joined.from_iterable(some))), _fine)
    for c in writes.erase:
        binds = {"w_tenant": writes.tenant, "w_chain": writes.run or "", "w_c": c}
        yield Part(Ask(WRITES.erase, WRITES.erase.places(binds)), _fine)
    for text, binds in destruction(WRITES, writes):
        yield Part(Ask(text, text.places(binds)), _fine)


def _row(row: Row) -> Part:
    kind = type(row)
    return Part(Ask(WRITES.whole[kind], rows.WHOLE[kind].places(row)), _FIXED[kind])
