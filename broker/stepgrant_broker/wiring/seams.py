"""What only tests replace in a broker, all in one place; `build` refuses any of it without `test_mode`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepgrant_broker.identity.enrolled import Assertion, read_assertion

if TYPE_CHECKING:
    from stepgrant_broker.api.token import ReadAssertion
    from stepgrant_broker.domain.ports import Clock, Failpoints, Ids
    from stepgrant_broker.identity.enrolled import Attested
    from stepgrant_broker.wiring.clock import AdvancingClock


@dataclass(frozen=True, slots=True)
class Seams:
    """Time, randomness, failures, and how assertions are read; `None` is the real thing."""

    clock: Clock | None = None
    ids: Ids | None = None
    failpoints: Failpoints | None = None
    read_assertion: ReadAssertion | None = None


@dataclass(frozen=True, slots=True)
class _ShiftedAssertion:
    """An assertion by a workload whose clock stayed behind when the broker's was moved forward."""

    assertion: Assertion
    clock: AdvancingClock

    @property
    def workload_id(self) -> str:
        """The enrolment that it names."""
        return self.assertion.workload_id

    def attest(self, jwk: Mapping[str, str], *, issuer: str, now_ms: int) -> Attested:
        """As `Assertion.attest`, at the workload's time."""
        return self.assertion.attest(jwk, issuer=issuer, now_ms=now_ms - self.clock.offset_ms)


def assertions_before(clock: AdvancingClock) -> ReadAssertion:
    """Read assertions of workloads that do not know how far `clock` was moved."""
    return lambda token: _ShiftedAssertion(read_assertion(token), clock)
