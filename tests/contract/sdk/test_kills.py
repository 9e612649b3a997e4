"""An agent that is killed with SIGKILL at each boundary of the SDK, and started again until it is done.

The shop's own book says how often each thing was done: exactly once, wherever the agent died.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import pytest

from faults.forks import environment, lived
from shop import Shop
from stepgrant._failpoints import NAMES
from stepgrant.testing import TestBroker

pytestmark = pytest.mark.timeout(240)

AGENT: Final = Path(__file__).with_name("killed.py")
PATIENCE_S: Final = 100.0


def start(broker: TestBroker, shop: Shop, face: str, **more: str) -> tuple[int, str, str]:
    """Run the agent to its end, whichever that is: exit code, output, errors."""
    given = {"STEPGRANT_URL": broker.url, "STEPGRANT_WORKLOAD_KEY": str(broker.key_of("agent")), **more}
    return lived(AGENT, shop.url, face, environment=environment(**given), patience_s=PATIENCE_S)


@pytest.mark.parametrize("face", ["Blocking", "Asynchronous"])
@pytest.mark.parametrize(
    "broker", [{"lease_s": 1, "sweep_ms": 50, "redeem_window_ms": 1500, "leeway_ms": 200}], indirect=True, ids=["short"]
)
def test_agent_killed_at_every_boundary(face: str, broker: TestBroker, shop: Shop) -> None:
    """One run: killed once at every boundary, in turn, and started again each time."""
    broker.allow("agent", shop.tools(charge="once"))
    for place in sorted(NAMES):
        code, output, errors = start(
            broker, shop, face, STEPGRANT_TEST="1", STEPGRANT_TEST_FAILPOINT=f"{place}:kill"
        )  # fmt: skip
        if code == 0:
            break
        assert code == -signal.SIGKILL, errors
    else:
        code, output, errors = start(broker, shop, face)
    assert code == 0, errors

    epoch, *orders = output.split()
    assert orders == ["1", "2"]
    assert int(epoch) > 3
    assert [act[1]["order"] for act in shop.acts] == ["1", "2"]


@pytest.mark.parametrize("place", sorted(NAMES - {"sdk.before_open", "sdk.after_open", "sdk.on_resume"}))
@pytest.mark.parametrize(
    "broker", [{"lease_s": 1, "sweep_ms": 50, "redeem_window_ms": 1500, "leeway_ms": 200}], indirect=True, ids=["short"]
)
def test_agent_killed_in_the_second_step(place: str, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    code, output, errors = start(
        broker, shop, "Blocking", STEPGRANT_TEST="1", STEPGRANT_TEST_FAILPOINT=f"{place}:kill:2"
    )  # fmt: skip
    assert (code, output) == (-signal.SIGKILL, ""), errors

    code, output, errors = start(broker, shop, "Blocking")
    assert code == 0, errors
    assert output.split() == ["2", "1", "2"]
    assert [act[1]["order"] for act in shop.acts] == ["1", "2"]
