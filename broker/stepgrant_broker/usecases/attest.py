"""Record a workload that was attested by an issuer's token: who it is to be called, before it can do anything.

An enrolled workload is recorded by whoever enrols it. One that a trust rule admits is recorded at its first exchange,
and again when its rule has given it other names: so the ledger says what each workload id stood for, people can list
it, and a kill switch finds it by id or by name.
"""

from __future__ import annotations

from dataclasses import replace

from stepgrant_broker.domain.journal import BROKER
from stepgrant_broker.domain.ports import Attested
from stepgrant_broker.domain.writes import Loaded, Query, Workload
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.enroll import ENROLLED_KEY, write_workload
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact


async def record_attested(ports: Ports, attested: Attested) -> Workload:
    """The workload as it is recorded. Raises `StoreUnavailable`, `RetriesExhausted`; then nothing was given out."""
    workload = attested.workload
    if workload.kind == ENROLLED_KEY:
        return workload

    async def known() -> Workload | None:
        row = await ports.reads.workload(workload.id)
        return row if row is not None and _says(row) == _says(workload) else None

    async def work(loaded: Loaded) -> Change[Workload] | Repeat[Workload]:
        now_known = await known()
        if now_known is not None:
            return Repeat(now_known)
        key = loaded.tenant_key or ports.new_chain_key(workload.tenant, "")
        journal = journal_for(ports, loaded, BROKER, key=key)
        made = replace(workload, enrolled_at=journal.now)
        write_workload(journal, made, "attested")
        return Change(made, journal, rows=(made,) if loaded.tenant_key is not None else (key, made))

    row = await known()
    return row if row is not None else await transact(ports, Query(workload.tenant), work)


def _says(workload: Workload) -> Workload:
    return replace(workload, enrolled_at=0)
