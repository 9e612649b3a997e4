"""The real SDK over the real broker, and a resource server that verifies and redeems what it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.forks import forking
from shop import Shop, shop_for
from stepgrant.testing import TestBroker


@pytest.fixture(scope="session", autouse=True)
def _forking() -> Iterator[None]:
    with forking():
        yield


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[TestBroker]:
    """A broker of the test's own, with the settings that the test is parametrized with (`shop.quick`)."""
    made = TestBroker(tmp_path / "broker", **getattr(request, "param", {}))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def shop(broker: TestBroker) -> Iterator[Shop]:
    with shop_for(broker) as made:
        yield made
