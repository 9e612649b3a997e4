"""What all calls of a run's holder share: the fence, the stored answer, the renewed lease, one commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.holding import require_holder
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.domain.values import replace
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.leases import transact_and_take_back
from stepgrant_broker.usecases.transact import (
    Change,
    Repeat,
    answered_before,
    by_agent,
    journal_for,
    scope_of,
)

Act = Callable[["Journal", "Loaded"], dict[str, Any]]


async def holder_call(
    ports: Ports,
    caller: AgentCaller,
    query: Query,
    epoch: int,
    request: Request,
    *,
    call: str,
    act: Act,
    keep: bool = True,
) -> dict[str, Any]:
    """Run `act` on a journal if the caller holds the run, commit, and answer. `keep`: store the answer for repeats.

    Raises the errors of `require_holder`, `answered_before`, `transact` and `act`.
    """
    target = f"{query.run}/{query.step or ''}"
    scope = scope_of(caller.tenant, caller.jkt, call, target, epoch, request.idempotency_key)

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        before = answered_before(ports, loaded, request) if _own(loaded, caller, epoch) else None
        if before is not None:
            return Repeat(before)
        require_holder(loaded, caller, epoch)
        journal = journal_for(ports, loaded, by_agent(caller))
        answer = act(journal, loaded)
        held = journal.run.state is RunState.OPEN
        lease = loaded.now + ports.limits.lease_ms if held else loaded.now
        return Change(answer, journal, lease_until=lease, guarded=True, stored=answer)

    if keep:
        query = replace(query, answer=scope)
    return await transact_and_take_back(ports, query, work, proof=caller.proof, request=request if keep else None)


def _own(loaded: Loaded, caller: AgentCaller, epoch: int) -> bool:
    """A call that ended the run is repeated by its transport too, so the last holder may still read its own answer."""
    run = loaded.view.run
    return run is not None and run.epoch == epoch and run.jkt == caller.jkt and run.tenant == caller.tenant
