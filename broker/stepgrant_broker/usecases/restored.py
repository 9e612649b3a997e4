"""After a restore: every tenant's chain says so, and no run goes on before a person has looked (`domain.restoring`).

Rules:
* It may be broken off anywhere and begun again: what a chain says already is not said twice, and the log gets its new
  name last. Until then no broker starts.
* What lives outside is only marked as to be taken back; the sweeper does that once the broker runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from stepgrant import canonical
from stepgrant_broker.domain import runs
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.log import LogStore
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import ApprovalStatus, Run, RunState, StepState, View
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.tenant_call import LOCAL, Effectuated, tenant_call
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact

AT_ONCE: Final = 16
"""Runs that are under way together: they share commits."""
LOOK_BACK: Final = 8
"""So many entries of a chain's end are looked through for what was said before: nothing else is written meanwhile."""
UNENDED: Final = (RunState.QUARANTINED, RunState.OPEN, RunState.PARKED)
"""Quarantined ones first: a run only moves towards what was listed before."""


@dataclass(frozen=True, slots=True)
class Restore:
    """What is restored: the log's `size` now, its name before and from now on, and the largest size known outside."""

    size: int
    known_size: int
    previous: str
    origin: str
    note: str


@dataclass(slots=True)
class Restored:
    """How many chains say it now, tries before this one included; and what this try found in doubt and made void."""

    tenants: int = 0
    runs: int = 0
    doubts: int = 0
    void: int = 0


async def restore(
    ports: Ports, log: LogStore, what: Restore, tenants: Iterable[str], watch: Callable[[Restored], None]
) -> Restored:
    """Restore; `watch` is told after each run. Raises what the store raises; then it is begun again."""
    done, names = Restored(), tuple(tenants)
    for tenant in names:
        await _announce(ports, tenant, what)
        done.tenants += 1
    for tenant in names:
        async for batch in _unended(ports, tenant):
            for view in await asyncio.gather(*(_restore_run(ports, run, what.origin) for run in batch)):
                _count(done, view)
            watch(done)
    await log.log_rename(what.previous, what.origin)
    return done


async def _announce(ports: Ports, tenant: str, what: Restore) -> None:
    known = (await ports.store.load(Query(tenant))).tenant
    if await _says(ports, tenant, None, known.seq, EntryType.STORE_RESTORED, what.origin):
        return

    def act(journal: Journal, _: Loaded) -> Effectuated:
        body = {
            "size": what.size,
            "known_size": what.known_size,
            "origin": what.origin,
            "previous_origin": what.previous,
            "note_c": journal.commit.value("restored.note", what.note),
        }
        journal.add(EntryType.STORE_RESTORED, body=body)
        return Effectuated({}, raise_guard=True)

    await tenant_call(ports, tenant, None, call="restore", act=act)


async def _unended(ports: Ports, tenant: str) -> AsyncIterator[list[Run]]:
    """The tenant's runs that are not ended, a few at a time."""
    for state in UNENDED:
        after: str | None = None
        while True:
            listed = await ports.reads.runs(tenant, Page(AT_ONCE, after), state=state.value)
            if listed.rows:
                yield [run for run, _ in listed.rows]
            if (after := listed.next) is None:
                break


async def _restore_run(ports: Ports, run: Run, origin: str) -> View:
    """The run as it is afterwards."""

    async def work(loaded: Loaded) -> Change[View] | Repeat[View]:
        now = loaded.view.run
        if now is None or now.state.ended:
            return Repeat(View())
        if await _says(ports, now.tenant, now.id, now.seq, EntryType.RUN_RESTORED, origin):
            return Repeat(View())  # by an earlier try, or by somebody else just now
        journal = journal_for(ports, loaded, LOCAL)
        runs.restore(journal, origin)
        return Change(journal.view, journal)

    return await transact(ports, Query(run.tenant, run=run.id, unfinished=True), work)


async def _says(ports: Ports, tenant: str, run: str | None, length: int, kind: EntryType, origin: str) -> bool:
    """Whether the end of this chain says that it was restored to this name."""
    for stored in await ports.reads.entries(tenant, run, after=length - 1 - LOOK_BACK, limit=LOOK_BACK):
        entry = canonical.loads(stored.data)
        body = entry.get("body") if isinstance(entry, dict) and entry.get("type") == kind.value else None
        if isinstance(body, dict) and body.get("origin") == origin:
            return True
    return False


def _count(done: Restored, view: View) -> None:
    done.runs += 1
    done.doubts += sum(step.state is StepState.IN_DOUBT for step in view.steps.values())
    done.void += sum(approval.status is ApprovalStatus.VOID for approval in view.approvals.values())
