"""Each of the design's 24 points is broken once, in turn by crash, error, delay and lost reply, on all kinds of labs.

A run is started again until it is done; then the referee judges. `python -m soak matrix` plays all combinations.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final, TypeGuard

import pytest

from faults.hall import Hall, hall
from faults.lab import ISSUERS, STORES, Services
from faults.points import ACTIONS, MORE, TABLE, Case, drawn, once_each
from faults.tales import Tale
from stepgrant._failpoints import NAMES
from stepgrant_broker.wiring.failpoints import POINTS

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer, VaultServer

CASES: Final = once_each()


@dataclass
class Stage:
    """A hall, and what is played there."""

    hall: Hall
    tales: dict[str, Future[Tale]]


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    vault_server: VaultServer,
    postgres_server: PostgresServer,
) -> Iterator[Stage]:
    """The chosen cases, played in the background: each test waits for its own."""
    chosen = [item.callspec.params["case"] for item in request.session.items if _is_case(item)]
    with hall(tmp_path_factory.mktemp("hall"), Services(vault_server, postgres_server)) as place:
        yield Stage(place, {case.name: place.play(case) for case in chosen if isinstance(case, Case)})


def _is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
    return isinstance(item, pytest.Function) and item.function is test_broken_once


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_broken_once(stage: Stage, case: Case) -> None:
    tale = stage.tales[case.name].result()
    assert tale.found == [], tale.report()
    assert tale.did(case.point, case.action), tale.report()


@pytest.mark.timeout(900)
def test_in_the_end_all_is_confirmed_dead(stage: Stage) -> None:
    """After all of them, or those that were chosen: also what nobody knew the lease of."""
    for tale in stage.tales.values():
        tale.result()
    assert stage.hall.settle() == []


def test_the_table_is_whole() -> None:
    """24 points, 18 of the broker and 6 of the SDK; every one has its case, and every pair of the other values too."""
    assert len(set(TABLE.values())) == 24
    assert sum(point.startswith("sdk.") for point in TABLE.values()) == 6
    assert [case.point for case in CASES] == list(TABLE.values())
    assert {(case.action, case.store) for case in CASES} == set(product(ACTIONS, STORES))
    assert {(case.action, case.issuer) for case in CASES} == set(product(ACTIONS, ISSUERS))
    assert {(case.store, case.issuer) for case in CASES} == set(product(STORES, ISSUERS))


def test_every_failpoint_is_soaked() -> None:
    assert {*TABLE.values(), *MORE} == POINTS | NAMES


def test_a_case_is_found_again_by_its_name() -> None:
    for case in [*CASES, *drawn(7, 50)]:
        assert Case.read(case.name) == case
    assert drawn(7, 50) == drawn(7, 50) != drawn(8, 50)
    for wrong in ("store.before_commit@1=burn/sqlite/jwt", "nowhere@1=kill/sqlite/jwt"):
        with pytest.raises(ValueError, match="is not point@nth=action/store/issuer"):
            Case.read(wrong)
