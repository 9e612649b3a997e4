"""Twenty times nearly orphaned: eighteen kills around a mint of Vault, and each server away while logins must die."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeGuard

import pytest

from faults.hall import Hall, hall
from faults.lab import Services
from faults.orphans import MOMENTS, Orphaning, Outage, all_moments
from faults.tales import Tale

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

CASES: Final = all_moments(random.Random("make test"), 18)
OUTAGES: Final = (Outage("vault", 6), Outage("postgres", 3))


@dataclass
class Stage:
    """A hall, and what is played there."""

    hall: Hall
    tales: dict[str, Future[Tale]]
    outages: dict[str, Future[list[str]]]


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    vault_server: VaultServer,
    postgres_server: PostgresServer,
    new_vault: Callable[..., VaultServer],
    new_postgres: Callable[..., PostgresServer],
) -> Iterator[Stage]:
    """The chosen cases, played in the background: mostly they wait. Each test waits for its own."""

    def away(case: Outage, folder: Path) -> list[str]:
        """An outage of servers that nobody else uses; all that is wrong then, and what is left."""
        with new_vault() as vault, new_postgres() as postgres, hall(folder, Services(vault, postgres)) as alone:
            tale = alone.play(case, case.harm).result()
            broken = [tale.report()] if tale.found else []
            return [*broken, *alone.settle(), *vault.leftovers(), *postgres.leftovers()]

    chosen = [item.callspec.params["case"] for item in request.session.items if _is_case(item)]
    with (
        hall(tmp_path_factory.mktemp("hall"), Services(vault_server, postgres_server)) as place,
        ThreadPoolExecutor(len(OUTAGES)) as pool,
    ):
        tales = {case.name: place.play(case) for case in chosen if isinstance(case, Orphaning)}
        alone = [(case, tmp_path_factory.mktemp(case.what)) for case in chosen if isinstance(case, Outage)]
        yield Stage(place, tales, {case.name: pool.submit(away, case, folder) for case, folder in alone})


def _is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
    cases = {test_killed_around_a_mint, test_a_server_is_away_while_logins_must_die}
    return isinstance(item, pytest.Function) and item.function in cases


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed_around_a_mint(stage: Stage, case: Orphaning) -> None:
    tale = stage.tales[case.name].result()
    assert tale.found == [], tale.report()
    assert [moment for moment in case.moments if not tale.did(MOMENTS[moment], "kill")] == [], tale.report()
    assert tale.kills == len(case.moments)


@pytest.mark.timeout(900)
def test_in_the_end_all_is_confirmed_dead(stage: Stage) -> None:
    """After all of them, or those that were chosen: also what nobody knew the lease of."""
    for tale in stage.tales.values():
        tale.result()
    assert stage.hall.settle() == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", OUTAGES, ids=lambda case: case.what)
def test_a_server_is_away_while_logins_must_die(stage: Stage, case: Outage) -> None:
    wrong = stage.outages[case.name].result()
    assert wrong == [], "\n".join(wrong)


def test_every_moment_comes_three_times() -> None:
    assert Counter(moment for case in CASES for moment in case.moments) == dict.fromkeys(MOMENTS, 3)
    assert all(Orphaning.read(case.name) == case for case in CASES)
    with pytest.raises(ValueError, match="moments are before intend"):
        Orphaning.read("sqlite/after lunch")
