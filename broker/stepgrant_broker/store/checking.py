"""A write set is looked at before it is queued: what contradicts itself is a bug and must not reach the ledger.

Rules:
* Everything in a set is of its tenant, and what belongs to a run is of its run. A slip here would write into another
  tenant's chain, which no later check could undo.
* Entries continue the chain without a gap, and the chain's row stands exactly behind them.

Rows are told apart by their very type: no row is of a subclass, and to ask a Struct whether it is one is dear.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final, cast

from stepgrant import canonical
from stepgrant_broker.domain.state import Approval, Epoch, Grant, Run, Step
from stepgrant_broker.domain.writes import ChainKey, Tenant
from stepgrant_broker.store.faults import WriteSetMalformed

if TYPE_CHECKING:
    from stepgrant_broker.domain.writes import Row, WriteSet


CHAINS: Final = frozenset({Run, Tenant})
_OF_RUN: Final = frozenset({Epoch, Step, Grant, Approval})
_id, _tenant, _run = attrgetter("id"), attrgetter("tenant"), attrgetter("run")


def chain_row(writes: WriteSet) -> Run | Tenant | None:
    """The row that carries the version of the set's chain, if the set has it. Raises `WriteSetMalformed`."""
    found = [row for row in writes.rows if type(row) in CHAINS]
    if not found:
        return None
    row = cast("Run | Tenant", found[0])
    kind = Tenant if writes.run is None else Run
    if len(found) > 1 or type(row) is not kind or row.id != (writes.run or writes.tenant):
        raise WriteSetMalformed("a set writes the row of its own chain, and that once")
    return row


def check(writes: WriteSet) -> None:
    """Raises `WriteSetMalformed`."""
    chain = chain_row(writes)
    _check_entries(writes)
    if chain is None and writes.entries:
        raise WriteSetMalformed("entries came without the row of their chain")
    if chain is not None and chain.seq != writes.expect_seq + len(writes.entries):
        raise WriteSetMalformed("the chain's row does not stand behind the set's entries")
    if chain is not None and writes.entries and chain.head != canonical.b64u(writes.entries[-1].hash):
        raise WriteSetMalformed("the chain's head is not the hash of the set's last entry")
    if chain is None and writes.run is not None and writes.expect_seq == 0:
        raise WriteSetMalformed("a run that does not exist yet begins with its row")
    for row in writes.rows:
        _check_row(writes, row)
    if writes.lease_until is not None and writes.run is None:
        raise WriteSetMalformed("only a run has a lease")
    if writes.key is not None:
        _check_row(writes, writes.key)
    if writes.destroy and not (isinstance(chain, Run) and chain.erased_at is not None and not writes.payloads):
        raise WriteSetMalformed("only an erased run loses what stands behind its commitments")
    answer = writes.answer
    if answer is not None and (answer.tenant, answer.run) != (writes.tenant, writes.run or ""):
        raise WriteSetMalformed("a stored answer of another chain")


def _check_entries(writes: WriteSet) -> None:
    for seq, entry in enumerate(writes.entries, writes.expect_seq):
        if entry.seq != seq or entry.run != writes.run or entry.tenant != writes.tenant:
            raise WriteSetMalformed("an entry of another chain, or out of order")


def _check_row(writes: WriteSet, row: Row) -> None:
    kind = type(row)
    if (_id if kind is Tenant else _tenant)(row) != writes.tenant:
        raise WriteSetMalformed(f"a {kind.__name__} of another tenant")
    if kind in _OF_RUN and _run(row) != writes.run:
        raise WriteSetMalformed(f"a {kind.__name__} of another run")
    if kind is ChainKey and _run(row) != (writes.run or ""):
        raise WriteSetMalformed("a key of another chain")
