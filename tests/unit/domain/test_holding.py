"""A clock that is behind what was recorded admits nobody."""

from __future__ import annotations

import pytest

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.holding import refuse_clock_doubt
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.writes import Loaded, Tenant

NOW = 1_800_000_000_000
LIMITS = Limits()


def loaded(*, last_ts: int = NOW, lease_until: int = 0) -> Loaded:
    return Loaded(NOW, Tenant("acme", 1, "h", last_ts), lease_until=lease_until)


@pytest.mark.parametrize(
    "recorded", [{"last_ts": NOW + LIMITS.leeway_ms}, {"lease_until": NOW + LIMITS.lease_ms + LIMITS.leeway_ms}]
)
def test_a_clock_within_the_leeway_is_trusted(recorded: dict[str, int]) -> None:
    refuse_clock_doubt(loaded(**recorded), LIMITS)


@pytest.mark.parametrize(
    "recorded", [{"last_ts": NOW + LIMITS.leeway_ms + 1}, {"lease_until": NOW + LIMITS.lease_ms + LIMITS.leeway_ms + 1}]
)
def test_a_clock_behind_an_entry_or_a_renewal_is_not(recorded: dict[str, int]) -> None:
    with pytest.raises(StoreUnavailable, match="clock is 5 s behind") as doubted:
        refuse_clock_doubt(loaded(**recorded), LIMITS)
    assert doubted.value.retry_after_ms == LIMITS.leeway_ms + 1
