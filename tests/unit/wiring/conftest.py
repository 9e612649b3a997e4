"""A built broker in a folder of its own, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog

from fakes.clock import ArmedFailpoints, StandingClock
from fakes.wired import Made
from heard import capture_logs
from stepgrant_broker.config import Settings, explicit_settings
from stepgrant_broker.wiring import Broker, build
from stepgrant_broker.wiring.seams import Seams


@pytest.fixture
def events() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, whatever an earlier test made of the logs."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    with capture_logs() as found:
        yield found
    if before is not None:
        structlog.configure(**before)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return explicit_settings(data_dir=tmp_path / "broker", test_mode=True, sweep_ms=600_000)


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def failpoints() -> ArmedFailpoints:
    return ArmedFailpoints()


@pytest.fixture
def made(settings: Settings, clock: StandingClock, failpoints: ArmedFailpoints) -> Made:
    """Builds a broker over the settings; keywords change settings."""

    def make(*, create: bool = True, **changed: Any) -> AbstractAsyncContextManager[Broker]:  # noqa: ANN401
        policy = changed.pop("policy", None)
        mine = settings.model_copy(update=changed)
        return build(mine, create=create, policy=policy, seams=Seams(clock=clock, failpoints=failpoints))

    return make


@pytest.fixture
async def broker(made: Made) -> AsyncIterator[Broker]:
    async with made() as built:
        yield built
