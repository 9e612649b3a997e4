"""What the tests of the embedded engine share."""

from collections.abc import AsyncIterator
from itertools import count

import pytest

from engines import PATIENCE_S, Make
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.engine_process import EngineProcess


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Engines that are patient where a test does not say otherwise: a busy machine fails no query, nor its alarm."""
    defaults = EngineProcess.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "query_s", PATIENCE_S)
    made: list[EmbeddedEngine] = []

    async def build(bundle: Bundle | None = None, revision: str = "1:a", **limits: float) -> EmbeddedEngine:
        numbers = count()
        patient = {"deadline_s": PATIENCE_S, "probe_deadline_s": PATIENCE_S, **limits}
        engine = EmbeddedEngine(decision_ids=lambda: f"dec_{next(numbers)}", **patient)  # type: ignore[arg-type]
        made.append(engine)
        if bundle is not None:
            await engine.load(revision, bundle)
        return engine

    yield build
    for engine in made:
        await engine.close()
