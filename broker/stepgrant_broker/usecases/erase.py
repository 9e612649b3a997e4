"""Erase a run: by an operator, or because the time for which it is kept is over. This is final.

One commit writes the entry and destroys the chain's key, and with it every payload and stored answer of the run; of a
large run the store drops the last ones after it, in portions. Erasing again answers the same and writes nothing.

By retention stored answers are not looked for once those of the run's life are over. One that a person got since then
keeps its row until its time is over too, a day at most; what was answered went with the run.
"""

from __future__ import annotations

from typing import Any

from stepgrant_broker.domain.caller import PersonCaller
from stepgrant_broker.domain.erasing import RETENTION, erase
from stepgrant_broker.domain.holding import require_run
from stepgrant_broker.domain.journal import BROKER
from stepgrant_broker.domain.state import Run
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.tenant_call import require_operator
from stepgrant_broker.usecases.transact import Change, Repeat, by_person, journal_for, transact


async def erase_run(ports: Ports, person: PersonCaller, run: str) -> dict[str, Any]:
    """Erase an ended run. Raises `Forbidden`, `UnknownRun`, `RunNotEnded`, `LeasesNotConfirmed`."""
    require_operator(person, "erase a run")
    return await _erase(ports, person.tenant, run, person)


async def erase_kept(ports: Ports, tenant: str, run: str) -> None:
    """Erase a run whose time is over. Raises as `erase_run`."""
    await _erase(ports, tenant, run, None)


async def _erase(ports: Ports, tenant: str, run: str, person: PersonCaller | None) -> dict[str, Any]:
    def over(known: Run, now: int) -> bool:
        """Whoever asks for it has all of it gone at once; retention erases many, and each look costs all others."""
        return person is None and known.ended_at is not None and known.ended_at + ports.limits.answer_kept_ms <= now

    async def work(loaded: Loaded) -> Change[dict[str, Any]] | Repeat[dict[str, Any]]:
        known = require_run(loaded, tenant)
        if known.erased_at is not None:
            return Repeat(_answer(known))
        journal = journal_for(ports, loaded, BROKER if person is None else by_person(person))
        if person is None:
            erase(journal, cause=RETENTION)
        else:
            erase(journal, operator=person.id)
        return Change(_answer(journal.run), journal, destroy=True, answers_over=over(known, loaded.now))

    try:
        return await transact(ports, Query(tenant, run=run, unfinished=True), work)
    finally:
        ports.keys.forget(tenant, run)


def _answer(run: Run) -> dict[str, Any]:
    return {"run": run.id, "state": run.state.value, "erased_at": run.erased_at, "head": run.head, "entries": run.seq}
