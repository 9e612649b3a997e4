"""Who may act in a run: the holder of the newest epoch, with its key, while its lease runs.

Rules (each is one guard, and a zombie falls over the first that applies):
* an ended or quarantined run admits nobody;
* an older epoch is stale, whatever else is right; a lapsed lease or a parked run fences its holder as well;
* the proof key must be the one that opened this epoch, and the workload the one that was attested then;
* a clock that is behind what was recorded admits nobody: by it, leases and credentials would live on after their time.
"""

from __future__ import annotations

from collections.abc import Iterable

from stepgrant_broker.domain.caller import AgentCaller
from stepgrant_broker.domain.errors import (
    Quarantined,
    RunEnded,
    StaleEpoch,
    StoreUnavailable,
    UnknownRun,
    WrongHolder,
)
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import Run, RunState
from stepgrant_broker.domain.writes import Loaded, Quarantine, Workload


def refuse_clock_doubt(loaded: Loaded, limits: Limits) -> None:
    """Raises `StoreUnavailable` when the clock was set back since this chain, or its lease, was written.

    Within a process time never goes back; a restart with another clock, or another replica, can be behind.
    """
    recorded = max(loaded.head().last_ts, loaded.lease_until - limits.lease_ms)
    behind = recorded - loaded.now
    if behind > limits.leeway_ms:
        raise StoreUnavailable(
            f"the broker's clock is {behind // 1000} s behind what it recorded itself; set it right, or wait",
            retry_after_ms=behind,
        )


def require_run(loaded: Loaded, tenant: str) -> Run:
    """The loaded run, if it exists and is the caller's tenant's. Raises `UnknownRun`."""
    run = loaded.view.run
    if run is None or run.tenant != tenant:
        raise UnknownRun("no such run")
    return run


def refuse_ended(run: Run) -> None:
    """Raises `RunEnded`. What people settle, they may settle while the kill switch is thrown: it is why they look."""
    if run.state.ended:
        raise RunEnded(f"the run is {run.state.value}; that is final", run=run.id, state=run.state.value)


def refuse_stopped(run: Run) -> None:
    """Raises `RunEnded` or `Quarantined`."""
    refuse_ended(run)
    if run.state is RunState.QUARANTINED:
        raise Quarantined("the run is quarantined; an operator must release it")


def refuse_quarantined(quarantines: Iterable[Quarantine], now: int, **names: str | Workload | None) -> None:
    """Raises `Quarantined` when any of the named things (agent=, workload=, issuer=) is under the kill switch.

    A workload that is given whole is looked for by its id and by its name.
    """
    for switch in quarantines:
        held = switch.released_at is None or switch.released_at > now
        named = names.get(switch.kind)
        if held and switch.name in ((named.id, named.name) if isinstance(named, Workload) else (named,)):
            raise Quarantined(f"{switch.kind} {switch.name} is quarantined; an operator must release it")


def require_holder(loaded: Loaded, caller: AgentCaller, epoch: int) -> Run:
    """The run, if the caller holds it. Raises `UnknownRun`, `RunEnded`, `Quarantined`, `StaleEpoch`, `WrongHolder`."""
    run = require_run(loaded, caller.tenant)
    refuse_stopped(run)
    if epoch != run.epoch:
        raise StaleEpoch(f"epoch {epoch} is not the run's epoch {run.epoch}; this process is fenced", epoch=run.epoch)
    if run.state is not RunState.OPEN:
        raise StaleEpoch("the run is parked; resume it to go on", epoch=run.epoch)
    if loaded.lease_until <= loaded.now:
        raise StaleEpoch("the lease has lapsed; resume the run to go on", epoch=run.epoch)
    if caller.jkt != run.jkt or caller.workload.id != run.workload:
        raise WrongHolder("this key or workload does not hold the run")
    refuse_quarantined(loaded.quarantines, loaded.now, agent=run.agent, workload=caller.workload)
    return run
