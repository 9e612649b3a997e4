"""What the tests of the embedded engine share."""

from collections.abc import AsyncIterator
from itertools import count

import pytest

from engines import Make
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.embedded import EmbeddedEngine


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[EmbeddedEngine] = []

    async def build(bundle: Bundle | None = None, revision: str = "1:a", **limits: float) -> EmbeddedEngine:
        numbers = count()
        engine = EmbeddedEngine(decision_ids=lambda: f"dec_{next(numbers)}", **limits)  # type: ignore[arg-type]
        made.append(engine)
        if bundle is not None:
            await engine.load(revision, bundle)
        return engine

    yield build
    for engine in made:
        await engine.close()
