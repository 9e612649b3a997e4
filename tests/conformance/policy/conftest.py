"""One suite for the port `PolicyEngine`, run over every adapter of `adapters.py`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest

from conformance.policy.adapters import ADAPTERS
from stepgrant_broker.domain.ports import PolicyEngine
from stepgrant_broker.policy.bundle import Bundle

Running: TypeAlias = Callable[..., Awaitable[PolicyEngine]]


@pytest.fixture(params=sorted(ADAPTERS))
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """Starts the adapter with a policy; everything that was started is closed."""
    started: list[PolicyEngine] = []

    async def start(bundle: Bundle, *, revision: str = "1:test", deadline_s: float = 2.0) -> PolicyEngine:
        engine = await ADAPTERS[request.param](revision, bundle, deadline_s)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        await engine.close()
