"""An agent that is killed with SIGKILL at each boundary of the SDK, and started again until it is done.

The shop's own book says how often each thing was done: exactly once, wherever the agent died.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shop import Shop
from stepgrant._failpoints import NAMES
from stepgrant.testing import TestBroker

pytestmark = pytest.mark.timeout(240)

TESTS = Path(__file__).parents[2]
AGENT = """
import sys
sys.path.insert(0, {tests!r})
import stepgrant
from agents import asking, calling
from faces import Asynchronous, Blocking
from shop import Shop

shop, face = Shop({url!r}), {face}()
charge = face.tool(calling(shop, "charge"), step_id="charge-{{order}}", reconcile=asking(shop, "charge"))

async def main():
    async with face.run("orders", agent="agent") as run:
        orders = await face.step("plan", lambda: ["1", "2"])
        done = [await face.call(charge, order) for order in orders]
        run.result = [one["order"] for one in done]
        print(run.epoch, *run.result, flush=True)

import asyncio
asyncio.run(main())
"""


def start(broker: TestBroker, shop: Shop, face: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the agent to its end, whichever that is."""
    code = AGENT.format(tests=str(TESTS), url=shop.url, face=face)
    given = {"STEPGRANT_URL": broker.url, "STEPGRANT_WORKLOAD_KEY": str(broker.key_of("agent")), **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **given},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("face", ["Blocking", "Asynchronous"])
@pytest.mark.parametrize(
    "broker", [{"lease_s": 1, "sweep_ms": 50, "redeem_window_ms": 1500, "leeway_ms": 200}], indirect=True, ids=["short"]
)
def test_agent_killed_at_every_boundary(face: str, broker: TestBroker, shop: Shop) -> None:
    """One run: killed once at every boundary, in turn, and started again each time."""
    broker.allow("agent", shop.tools(charge="once"))
    for place in sorted(NAMES):
        done = start(broker, shop, face, STEPGRANT_TEST="1", STEPGRANT_TEST_FAILPOINT=f"{place}:kill")
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        done = start(broker, shop, face)
    assert done.returncode == 0, done.stderr

    epoch, *orders = done.stdout.split()
    assert orders == ["1", "2"]
    assert int(epoch) > 3
    assert [act[1]["order"] for act in shop.acts] == ["1", "2"]


@pytest.mark.parametrize("place", sorted(NAMES - {"sdk.before_open", "sdk.after_open", "sdk.on_resume"}))
@pytest.mark.parametrize(
    "broker", [{"lease_s": 1, "sweep_ms": 50, "redeem_window_ms": 1500, "leeway_ms": 200}], indirect=True, ids=["short"]
)
def test_agent_killed_in_the_second_step(place: str, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    killed = start(broker, shop, "Blocking", STEPGRANT_TEST="1", STEPGRANT_TEST_FAILPOINT=f"{place}:kill:2")
    again = start(broker, shop, "Blocking")

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout == ""
    assert again.returncode == 0, again.stderr
    assert again.stdout.split() == ["2", "1", "2"]
    assert [act[1]["order"] for act in shop.acts] == ["1", "2"]
