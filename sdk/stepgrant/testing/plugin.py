"""A pytest plugin that gives tests a real broker.

    def test_charging(stepgrant_broker):
        stepgrant_broker.allow("billing", {"charge_card": "once"})
        with stepgrant_broker.run("order-1", agent="billing"):
            assert charge_card("inv_9", 4200) == {...}

Rules:
* Importing this module imports nothing else of the package: pytest loads it before any coverage tool is there.
* One broker for each test, in a folder of its own; a fifth of a second to start it.
* `STEPGRANT_URL` and `STEPGRANT_WORKLOAD_KEY` are set for the test, so that code which calls `stepgrant.run` itself
  reaches it.
* Whoever forgot to allow something is told so where the test fails.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stepgrant import Run
    from stepgrant.testing import TestBroker

    Report = pytest.TestReport


@pytest.fixture
def stepgrant_broker(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestBroker]:
    """A broker that denies what the test did not allow."""
    from stepgrant.testing import TestBroker  # noqa: PLC0415  # see the module's rules

    broker = TestBroker(tmp_path_factory.mktemp("stepgrant"), set_env=monkeypatch.setenv)
    try:
        yield broker
    finally:
        broker.close()


@pytest.fixture
def stepgrant_run(stepgrant_broker: TestBroker, request: pytest.FixtureRequest) -> Iterator[Run]:
    """A run that is open for the length of the test, with every tool allowed: for testing tools by themselves."""
    stepgrant_broker.allow_everything()
    with stepgrant_broker.run(request.node.name[:200], agent="test-agent") as run:
        yield run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Report, Report]:
    """Say with a test's failure what its broker was not told to allow."""
    broker: TestBroker | None = getattr(item, "funcargs", {}).get("stepgrant_broker")
    if broker is not None and call.excinfo is not None:
        broker.explain(call.excinfo.value)
    return (yield)
