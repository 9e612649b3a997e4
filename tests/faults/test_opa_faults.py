"""A real OPA that is stopped, killed, frozen or given another policy under load: no wrong allow, and service at once.

The load asks for what is allowed and for what is denied in turn, so a wrong answer of either kind would be seen.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx
import pytest

from engines import PATIENCE_S, hurried
from fakes.wired import until
from opas import Serve, put, serving
from policies import ALLOW, SLOW, call, one, slow
from stepgrant_broker.domain.decisions import Allow, Deny
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.opa import OpaEngine, OpaOptions
from stepgrant_broker.policy.opa_place import Limits, Place

if TYPE_CHECKING:
    from stepgrant_services import OpaServer

POLICY = one(ALLOW)
OTHER = one(ALLOW.replace("probe.read", "not.listed"))
DEADLINE_S = 0.3
IDLE_S = 40.0


@pytest.fixture
def opa(opa_server: Serve, tmp_path: Path) -> Iterator[OpaServer]:
    with serving(opa_server, POLICY, tmp_path) as server:
        yield server


@pytest.fixture
async def engine(opa: OpaServer) -> AsyncIterator[OpaEngine]:
    options = OpaOptions(Place(opa.url), deadline_s=PATIENCE_S, limits=Limits(in_flight=8, waiting=64))
    made = OpaEngine(options, decision_ids=lambda: "dec_1")
    await made.load("1:" + POLICY.digest, POLICY)
    yield made
    await made.close()


async def outcome(engine: OpaEngine, tool: str) -> str:
    """What became of one question; an answer must be the right one for its tool."""
    try:
        decision = parse((await engine.evaluate(call(tool))).raw)
    except PolicyUnavailable as fault:
        return fault.detail
    assert isinstance(decision, Allow if tool == "probe.read" else Deny), (tool, decision)
    return type(decision).__name__


class Load:
    """Eight callers that never stop asking, first in peace, then in a hurry. `seen` counts what they were told."""

    def __init__(self, engine: OpaEngine) -> None:
        self._engine = engine
        self.seen: Counter[str] = Counter()
        self.anew: Counter[str] | None = None
        self._rounds = [0] * 8
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(8)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for done in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(done, asyncio.CancelledError), done

    async def _ask(self, number: int) -> None:
        while True:
            anew = self.anew
            told = await outcome(self._engine, "probe.read" if number % 2 else "not.listed")
            self.seen[told] += 1
            self._rounds[number] += 1
            if anew is not None:
                anew[told] += 1
            await asyncio.sleep(0.001)

    async def hurry(self) -> None:
        """Each question that is under way when this returns has the short deadline."""
        hurried(self._engine, DEADLINE_S)
        before = list(self._rounds)
        await until(lambda: all(now > then for now, then in zip(self._rounds, before, strict=True)))

    async def served_at_once(self) -> None:
        """OPA is back: whatever is asked from now on is answered, the first questions included.

        That is service within the time that one question takes, on any machine.
        """
        hurried(self._engine, PATIENCE_S)
        anew: Counter[str] = Counter()
        self.anew = anew
        await until(lambda: anew["Allow"] > 0 and anew["Deny"] > 0, PATIENCE_S)
        assert set(anew) == {"Allow", "Deny"}
        self.anew = None


@pytest.mark.parametrize(
    ("harm", "mend"),
    [
        ("stop", "start"),
        ("kill", "start"),
        ("pause", "resume"),
    ],
)
async def test_gone_and_back_under_load(engine: OpaEngine, opa: OpaServer, harm: str, mend: str) -> None:
    async with Load(engine) as load:
        await load.served_at_once()
        await load.hurry()
        await asyncio.to_thread(getattr(opa, harm))
        before = load.seen.total()
        await asyncio.sleep(DEADLINE_S * 2)
        served = load.seen["Allow"] + load.seen["Deny"]
        await asyncio.sleep(DEADLINE_S * 2)
        assert load.seen["Allow"] + load.seen["Deny"] == served
        await until(lambda: load.seen.total() > before)
        await asyncio.to_thread(getattr(opa, mend))
        await load.served_at_once()
    reasons = {reason for reason in load.seen if reason not in {"Allow", "Deny"}}
    known = {
        f"no decision within {DEADLINE_S} s",
        f"no decision within {PATIENCE_S} s",  # one in a hurry whose end fell into the peace that came after
        "OPA closed the connection before its answer was whole",
        "OPA closed the connection",
    }
    strange = {one for one in reasons - known if not one.startswith(f"OPA cannot be reached at {opa.url} (")}
    assert strange == set()
    assert reasons


async def test_another_policy_stops_decisions_until_the_right_one_is_back(
    engine: OpaEngine, opa: OpaServer, tmp_path: Path
) -> None:
    async with Load(engine) as load:
        await load.served_at_once()
        put(OTHER, tmp_path)
        await asyncio.to_thread(opa.restart)
        named = f"OPA has another policy loaded: {OTHER.digest}, but {POLICY.digest} is wanted; "
        await until(lambda: any(reason.startswith(named) for reason in load.seen))
        served = load.seen["Allow"] + load.seen["Deny"]
        await asyncio.sleep(0.2)
        assert load.seen["Allow"] + load.seen["Deny"] == served
        put(POLICY, tmp_path)
        await asyncio.to_thread(opa.restart)
        await load.served_at_once()


async def test_nothing_at_all_is_loaded(opa_server: Serve) -> None:
    with opa_server() as bare:
        engine = OpaEngine(OpaOptions(Place(bare.url)), decision_ids=lambda: "dec_1")
        with pytest.raises(PolicyUnavailable, match="OPA has another policy loaded: none from a bundle"):
            await engine.load("1:" + POLICY.digest, POLICY)
        with pytest.raises(PolicyUnavailable, match="no policy is loaded"):
            await engine.evaluate(call())
        await engine.close()


async def test_rules_that_somebody_pushed_past_the_bundle_do_not_decide(opa_server: Serve, tmp_path: Path) -> None:
    """Our roots are closed by the manifest: OPA refuses to take more rules below them over its API."""
    forged = 'package stepgrant.rules.forged\n\nallow contains "forged"\n'
    with serving(opa_server, POLICY, tmp_path) as opa:
        async with httpx.AsyncClient(trust_env=False) as client:
            pushed = await client.put(f"{opa.url}/v1/policies/forged", content=forged)
            data = await client.put(f"{opa.url}/v1/data/stepgrant/forged", content="{}")
    assert pushed.status_code == 400
    assert "owned by bundle" in pushed.text
    assert data.status_code == 400


async def test_a_hung_question_is_given_up_there_too(opa_server: Serve, tmp_path: Path) -> None:
    """OPA stops working on a question whose asker is gone: otherwise its processors would fill with them."""
    bundle = one(SLOW)
    with serving(opa_server, bundle, tmp_path) as opa:
        engine = OpaEngine(OpaOptions(Place(opa.url), deadline_s=PATIENCE_S), decision_ids=lambda: "dec_1")
        await engine.load("1:x", bundle)
        hurried(engine, DEADLINE_S)
        for _ in range(3):
            with pytest.raises(PolicyUnavailable, match="no decision within"):
                await engine.evaluate(slow(1000))
        # One question alone would keep it busy for many times as long.
        end = time.monotonic() + IDLE_S
        used, before = math.inf, _processor_seconds(opa.pid)
        while used >= 0.1:
            assert time.monotonic() < end, "OPA works on questions that nobody waits for"
            await asyncio.sleep(0.5)
            used, before = _processor_seconds(opa.pid) - before, _processor_seconds(opa.pid)
        await engine.close()


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
