"""The policy engines that the suite runs over. A new one joins by a function here and a line in `ADAPTERS`."""

from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Final, TypeAlias

from stepgrant_broker.domain.ports import PolicyEngine
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.embedded import EmbeddedEngine

Start: TypeAlias = Callable[[str, Bundle, float], Awaitable[PolicyEngine]]
"""(revision, policy, deadline in seconds) to an engine that decides by this policy."""


async def embedded(revision: str, bundle: Bundle, deadline_s: float) -> PolicyEngine:
    numbers = count()
    engine = EmbeddedEngine(decision_ids=lambda: f"dec_{next(numbers)}", deadline_s=deadline_s)
    await engine.load(revision, bundle)
    return engine


ADAPTERS: Final[Mapping[str, Start]] = {"embedded": embedded}
