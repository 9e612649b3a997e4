"""Fifty schedules of SIGSTOP and SIGCONT, each from its seed, on SQLite and through two brokers on PostgreSQL.

They run a few at a time in the background, for what they mostly do is wait for leases: each test waits for its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeGuard

import pytest

from faults.schedules import Schedule
from faults.zombies import Company, staged

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

pytestmark = pytest.mark.timeout(180)
ON_SQLITE: Final = range(40)
ON_TWO_BROKERS: Final = range(40, 50)


@dataclass
class Stage:
    """A company, and the schedules that it plays."""

    company: Company
    tales: dict[int, Future[Schedule]]


@contextmanager
def playing(company: Company, seeds: list[int]) -> Iterator[Stage]:
    with ThreadPoolExecutor(len(company.troupes)) as pool:
        try:
            yield Stage(company, {seed: pool.submit(company.play, seed) for seed in seeds})
        finally:
            pool.shutdown(cancel_futures=True)


def chosen(request: pytest.FixtureRequest, test: object) -> list[int]:
    def is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
        return isinstance(item, pytest.Function) and item.function is test

    return [int(str(item.callspec.params["seed"])) for item in request.session.items if is_case(item)]


@pytest.fixture(scope="module")
def one_broker(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with (
        staged(tmp_path_factory.mktemp("zombies")) as company,
        playing(company, chosen(request, test_on_sqlite)) as stage,
    ):
        yield stage


@pytest.fixture(scope="module")
def two_brokers(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> Iterator[Stage]:
    with (
        staged(tmp_path_factory.mktemp("zombies"), postgres_server, troupes=2) as company,
        playing(company, chosen(request, test_through_two_brokers)) as stage,
    ):
        yield stage


def holds(stage: Stage, seed: int) -> None:
    schedule = stage.tales[seed].result()
    assert schedule.wrong == [], "\n".join(schedule.told)
    assert schedule.zombies != []


@pytest.mark.parametrize("seed", ON_SQLITE)
def test_on_sqlite(one_broker: Stage, seed: int) -> None:
    holds(one_broker, seed)


def test_the_ledger_on_sqlite_holds(one_broker: Stage) -> None:
    """After all of them, or those that were chosen."""
    for tale in one_broker.tales.values():
        tale.result()
    assert one_broker.company.broken() == []


@pytest.mark.parametrize("seed", ON_TWO_BROKERS)
def test_through_two_brokers(two_brokers: Stage, seed: int) -> None:
    holds(two_brokers, seed)


def test_the_ledger_of_two_brokers_holds(two_brokers: Stage) -> None:
    """After all of them, or those that were chosen."""
    for tale in two_brokers.tales.values():
        tale.result()
    assert two_brokers.company.broken() == []
