"""The kill switch, for a run, an agent name, a workload or an issuer.

Rules:
* The guard of the tenant rises with the switch, in the same commit, and every grant's commit compares it: a call in
  flight cannot outrun it.
* The runs that are touched are then stopped one by one, each in a commit; one that cannot be is told of at the end.
* A name that nothing has is refused: a switch that hits nothing must not read as one that hit. Who wants to block a
  name before anything has it says so (`beforehand`).
* What they held outside is taken back after all of them, together: no issuer that hangs holds up the switch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from stepgrant_broker.domain import runs
from stepgrant_broker.domain.caller import PersonCaller
from stepgrant_broker.domain.errors import InvalidRequest, NotFound, StepgrantFault
from stepgrant_broker.domain.grants import is_open
from stepgrant_broker.domain.holding import require_run
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.releasing import release_all
from stepgrant_broker.domain.values import replace
from stepgrant_broker.domain.writes import Loaded, Quarantine, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.leases import take_back, taken_back
from stepgrant_broker.usecases.naming import is_known, names_of, near
from stepgrant_broker.usecases.tenant_call import Effectuated, operator_action, require_operator, tenant_call
from stepgrant_broker.usecases.transact import Change, Repeat, by_person, journal_for, transact

KINDS: Final = frozenset({"run", "agent", "workload", "issuer"})


async def quarantine(
    ports: Ports, person: PersonCaller, kind: str, name: str, *, beforehand: bool = False
) -> dict[str, Any]:
    """Throw the switch; again takes back what is left. `beforehand`: although nothing has this name yet.

    Raises `Forbidden`, `InvalidRequest`, `NotFound`, `UnknownRun`.
    """
    require_operator(person, "quarantine")
    if kind not in KINDS:
        raise InvalidRequest(f"quarantine one of {', '.join(sorted(KINDS))}", field="kind")
    if kind == "run":
        await _on_runs(ports, person, [name], lambda journal: runs.quarantine(journal, "run"), raise_guard=True)
        return {"kind": kind, "name": name, "runs": [name]}
    if not beforehand and not await is_known(ports, person.tenant, kind, name):
        known = await names_of(ports, person.tenant, kind)
        others = await near(name, known)
        raise NotFound(
            f"nothing was stopped: no {kind} {name} is known here{others}; to block a name before anything has it, say "
            "beforehand",
            field=kind,
        )

    def act(journal: Journal, _: Loaded) -> Effectuated:
        operator_action(journal, "quarantined", target={"kind": kind, "name": name}, operator=person.id)
        row = Quarantine(person.tenant, kind, name, journal.now)
        return Effectuated({}, (row,), raise_guard=True)

    await tenant_call(ports, person.tenant, person, call="quarantine", act=act)
    held: dict[str, None] = {}
    for one in await _named(ports, person.tenant, kind, name):
        found = await ports.reads.held(person.tenant, **{"agent": None, "workload": None, "issuer": None, kind: one})
        held.update(dict.fromkeys(found))
    await _on_runs(ports, person, list(held), _takes_back(kind, name))
    return {"kind": kind, "name": name, "runs": list(held)}


async def _named(ports: Ports, tenant: str, kind: str, name: str) -> list[str]:
    """What the switch is on, as runs name it: a workload's name stands for every workload that has it."""
    if kind != "workload":
        return [name]
    return [name, *(row.id for row in await ports.reads.workloads(tenant) if row.name == name)]


def _takes_back(kind: str, name: str) -> Callable[[Journal], None]:
    if kind == "issuer":
        return lambda journal: _drop_issuer(journal, name)
    return lambda journal: runs.quarantine(journal, kind)


def _drop_issuer(journal: Journal, issuer: str) -> None:
    others = {jti: g for jti, g in journal.view.grants.items() if g.issuer != issuer and is_open(g)}
    kept = replace(journal.view, grants={j: g for j, g in journal.view.grants.items() if j not in others})
    journal.view = kept
    release_all(journal, "quarantined")
    journal.view = replace(journal.view, grants={**journal.view.grants, **others})


async def _on_runs(
    ports: Ports,
    person: PersonCaller,
    named: Sequence[str],
    act: Callable[[Journal], None],
    *,
    raise_guard: bool = False,
) -> None:
    """Do it to each. Raises the last fault, once all others are stopped and what they held is taken back."""
    journals, failed = list[Journal](), None
    for run in named:
        try:
            await _on_run(ports, person, run, act, raise_guard=raise_guard, committed=journals.append)
        except StepgrantFault as fault:
            failed = fault
    if gone := taken_back(journals):
        await take_back(ports, gone)
    if failed is not None:
        raise failed


async def _on_run(
    ports: Ports,
    person: PersonCaller,
    run: str,
    act: Callable[[Journal], None],
    *,
    raise_guard: bool,
    committed: Callable[[Journal], None],
) -> None:
    async def work(loaded: Loaded) -> Change[None] | Repeat[None]:
        if require_run(loaded, person.tenant).state.ended:
            return Repeat(None)
        journal = journal_for(ports, loaded, by_person(person))
        act(journal)
        if not journal.entries:
            return Repeat(None)
        return Change(None, journal, raise_guard=raise_guard)

    await transact(ports, Query(person.tenant, run=run, unfinished=True), work, committed=committed)


async def release(ports: Ports, person: PersonCaller, kind: str, name: str) -> dict[str, Any]:
    """Lift a switch. Runs that it quarantined stay so until each is released. Raises `NotFound`, `InvalidRequest`."""
    require_operator(person, "release")
    if kind not in KINDS:
        raise InvalidRequest(f"release one of {', '.join(sorted(KINDS))}", field="kind")
    if kind == "run":
        await _on_runs(ports, person, [name], runs.release)
        return {"kind": kind, "name": name}
    known = next((q for q in await ports.reads.quarantines(person.tenant) if (q.kind, q.name) == (kind, name)), None)
    if known is None:
        raise NotFound(f"{kind} {name} is not quarantined")

    def act(journal: Journal, _: Loaded) -> Effectuated:
        operator_action(journal, "released", target={"kind": kind, "name": name}, operator=person.id)
        return Effectuated({"kind": kind, "name": name}, (replace(known, released_at=journal.now),), raise_guard=True)

    return await tenant_call(ports, person.tenant, person, call="release", act=act)
