"""The sweeper: what a crash left behind is finished without anybody asking.

A run whose lease has lapsed is parked, and what its holder had is revoked; expired proofs and stored answers go.
"""

from __future__ import annotations

from stepgrant_broker.domain import runs
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.domain.journal import BROKER
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact

BATCH = 200


async def sweep(ports: Ports) -> int:
    """One round; how many runs were parked."""
    now = await ports.reads.now()
    parked, failed = 0, None
    for tenant, run in await ports.reads.lapsed(now, BATCH):
        try:
            parked += await _park_lapsed(ports, tenant, run)
        except StepgrantFault as fault:
            # One run that cannot be parked must not keep the others, or the clean-up, waiting.
            failed = fault
    await ports.reads.forget_expired(now)
    if failed is not None:
        raise failed
    return parked


async def _park_lapsed(ports: Ports, tenant: str, run: str) -> int:
    async def work(loaded: Loaded) -> Change[int] | Repeat[int]:
        known = loaded.view.run
        if known is None or known.state is not RunState.OPEN or loaded.lease_until > loaded.now:
            return Repeat(0)
        journal = journal_for(ports, loaded, BROKER)
        runs.park(journal, "lease_lapsed", cause="lease_lapsed")
        return Change(1, journal)

    return await transact(ports, Query(tenant, run=run, unfinished=True), work)
