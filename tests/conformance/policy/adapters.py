"""The policy engines that the suite runs over. A new one joins by a function here and a line in `ADAPTERS`."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Final, TypeAlias

from engines import PATIENCE_S
from fakes.lying_opa import lying_opa
from stepgrant_broker.domain.ports import PolicyEngine
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.opa import OpaEngine, OpaOptions
from stepgrant_broker.policy.opa_place import Place

Start: TypeAlias = Callable[[str, Bundle, float], AbstractAsyncContextManager[PolicyEngine]]
"""(revision, policy, deadline in seconds) to an engine that decides by this policy."""
OnOpa: TypeAlias = Callable[[str, str, Bundle, float], AbstractAsyncContextManager[PolicyEngine]]
"""The same, over the URL of an OPA that serves the policy."""


@asynccontextmanager
async def embedded(revision: str, bundle: Bundle, deadline_s: float) -> AsyncIterator[PolicyEngine]:
    numbers = count()
    engine = EmbeddedEngine(
        decision_ids=lambda: f"dec_{next(numbers)}", deadline_s=deadline_s, probe_deadline_s=PATIENCE_S
    )
    try:
        await engine.load(revision, bundle)
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def opa(url: str, revision: str, bundle: Bundle, deadline_s: float) -> AsyncIterator[PolicyEngine]:
    numbers = count()
    options = OpaOptions(Place(url), deadline_s=deadline_s)
    engine = OpaEngine(options, decision_ids=lambda: f"dec_{next(numbers)}")
    try:
        await engine.load(revision, bundle)
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def opa_behind_the_liar(
    url: str, revision: str, bundle: Bundle, deadline_s: float
) -> AsyncIterator[PolicyEngine]:
    """The fake of the fault tests, honest: it must be as good as the real one."""
    async with lying_opa(url) as liar, opa(liar.url, revision, bundle, deadline_s) as engine:
        yield engine


ADAPTERS: Final[Mapping[str, Start]] = {"embedded": embedded}
ON_OPA: Final[Mapping[str, OnOpa]] = {"opa": opa, "opa_behind_the_liar": opa_behind_the_liar}
