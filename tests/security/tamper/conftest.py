"""The victim, written once for each file of tests, and stolen anew for each of them, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from security.tamper.stolen import Given, Stolen, steal
from security.tamper.victim import DATABASE, Victim, write
from stepgrant_broker.ledger import check_keys


@pytest.fixture(autouse=True)
def nobody_else_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stolen stands still: nothing has to be looked at again a moment later."""
    monkeypatch.setattr(check_keys, "PAUSE_S", 0)


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return asyncio.run(write(tmp_path_factory.mktemp("victim")))


@pytest.fixture(scope="module")
def given(victim: Victim, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Given]]:
    """A PostgreSQL database with the rows of a state, made on first use."""
    known: dict[str, Given] = {}

    def get(state: str) -> Given:
        if state in known:
            known[state].put_right()
        else:
            known[state] = Given(request.getfixturevalue("postgres_server"), victim.state(state) / DATABASE)
        return known[state]

    yield get
    for one in known.values():
        one.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgres"))])
def stolen_from(
    request: pytest.FixtureRequest, victim: Victim, tmp_path: Path, given: Callable[[str], Given]
) -> Callable[[str], Stolen]:
    """Steal a state."""
    return lambda state: steal(
        victim, state, tmp_path / state, given(state).url if request.param == "postgres" else None
    )


@pytest.fixture
def stolen(stolen_from: Callable[[str], Stolen]) -> Stolen:
    """What is there now."""
    return stolen_from("now")
