"""What only tests replace in a broker, all in one place; `build` refuses any of it without `test_mode`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepgrant_broker.api.token import Identities
    from stepgrant_broker.domain.ports import Clock, Failpoints, Ids


@dataclass(frozen=True, slots=True)
class Seams:
    """Time, randomness, failures, and the time by which identities are judged; `None` is the real thing."""

    clock: Clock | None = None
    ids: Ids | None = None
    failpoints: Failpoints | None = None
    identities: Callable[[Identities], Identities] | None = None
