"""What may already have happened: hooks that look, doubts that stay, and nothing secret left behind."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import pytest

import stepgrant
from agents import asking, tool_of
from faces import Blocking, Face, faces
from shop import Shop, quick
from stepgrant import Credential, Inject, errors
from stepgrant.testing import TestBroker

LEASE_S = 30
DAY_S = 86_400


def at(broker: TestBroker, agent: str = "agent") -> dict[str, Any]:
    return {"agent": agent, "url": broker.url, "workload_key": broker.key_of(agent)}


@faces
@quick
async def test_hook_finds_that_it_was_done(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    charge = tool_of(face, shop, "charge", reconcile=asking(shop, "charge"))
    shop.faults.append("lost")
    async with face.run("order-991", **at(broker)) as held:
        with pytest.raises(Exception, match="disconnected"):
            await face.call(charge, "991")
        expected = {"done": "charge", "order": "991", "amount": 5}
        assert await face.call(charge, "991") == expected
        assert await face.call(charge, "991") == expected

    assert shop.done("charge") == 1
    steps = [(entry.type, entry.step) for entry in broker.entries(held.id)]
    assert ("step_completed", "charge-991~reconcile~1") in steps
    assert ("step_reconciled", "charge-991") in steps


@faces
@quick
async def test_hook_finds_that_it_was_not_done_and_looks_late_enough(
    face: Face, broker: TestBroker, shop: Shop
) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    charge = tool_of(face, shop, "charge", reconcile=asking(shop, "charge"))
    shop.faults.append("redeemed")
    begun = time.monotonic()
    async with face.run("order-991", **at(broker)) as held:
        with pytest.raises(Exception, match="disconnected"):
            await face.call(charge, "991")
        assert (await face.call(charge, "991"))["order"] == "991"

    assert shop.done("charge") == 1
    assert time.monotonic() - begun > 1.1  # the redeemed credential's window and leeway
    entries = broker.entries(held.id)
    looks = [entry.step for entry in entries if entry.type == "step_completed" and "~reconcile~" in str(entry.step)]
    assert len(looks) >= 2
    verdicts = [entry.part("body") for entry in entries if entry.type == "step_reconciled"]
    assert [(one["verdict"], one["via"]) for one in verdicts] == [("not_done", looks[-1])]


@faces
@quick
@pytest.mark.parametrize("kind", ["none", "cannot tell", "raises", "nonsense", "denied"])
async def test_doubt_that_stays_parks_the_run(face: Face, broker: TestBroker, shop: Shop, kind: str) -> None:
    tools = shop.tools(charge="once")
    broker.allow("agent", tools)
    hooks: dict[str, Any] = {
        "none": None,
        "cannot tell": lambda step: stepgrant.unknown(evidence=f"no book for {step.key}"),
        "raises": lambda step: 1 // (step.attempt - 1),
        "nonsense": lambda step: {"done": step.key},
        "denied": lambda step: stepgrant.done(step.key),
    }
    charge = tool_of(face, shop, "charge", reconcile=hooks[kind])
    shop.faults.append("lost")

    async def agent() -> Any:
        async with face.run("order-991", **at(broker)):
            with pytest.raises(Exception, match="disconnected"):
                await face.call(charge, "991")
            if kind == "denied":
                broker.allow("agent", {"charge": {**tools["charge"], "effect": "once", "resources": {"x": "y:z"}}})
            return await face.call(charge, "991")

    with pytest.raises(errors.InDoubt) as caught:
        await agent()

    said = {
        "none": "tool_raised", "cannot tell": "the hook cannot tell: no book for charge-991",
        "raises": "the hook raised ZeroDivisionError", "nonsense": "the hook raised ConfigurationError",
        "denied": "the hook could not look (policy_denied)",
    }  # fmt: skip
    assert said[kind] in caught.value.why
    assert caught.value.step == "charge-991"
    assert shop.done("charge") == 1
    assert {run.state.value for run in broker.host.runs()} == {"parked"}  # type: ignore[attr-defined]  # of this host


@faces
@quick
async def test_run_with_a_doubt_cannot_be_completed(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    charge = tool_of(face, shop, "charge")
    shop.faults.append("lost")

    async def careless() -> None:
        async with face.run("order-991", **at(broker)):
            with pytest.raises(Exception, match="disconnected"):
                await face.call(charge, "991")

    with pytest.raises(errors.InDoubt):
        await careless()
    async with face.run("order-991", **at(broker)) as held:
        assert held.steps_in_doubt == ("charge-991",)
        with pytest.raises(errors.InDoubt):
            await face.call(charge, "991")
        await face.call(held.fail, "a person has to look")

    assert shop.done("charge") == 1


@quick
def test_hook_has_a_credential_of_its_own(broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    seen: list[Any] = []

    def look(step: stepgrant.CurrentStep, cred: Annotated[Credential, Inject]) -> stepgrant.Verdict:
        seen.append((step, stepgrant.current_step(), cred))
        return stepgrant.done({"found": True})

    charge = tool_of(Blocking(), shop, "charge", reconcile=look)
    shop.faults.append("lost")
    with stepgrant.run("order-991", **at(broker)):
        with pytest.raises(Exception, match="disconnected"):
            charge("991")
        assert charge("991") == {"found": True}

    ((doubted, own, credential),) = seen
    assert (doubted.key, doubted.tool, doubted.args) == ("charge-991", "charge", {"order": "991", "amount": 5})
    assert (own.key, own.tool, own.effect) == ("charge-991~reconcile~1", "charge.reconcile", "read")
    assert doubted.idempotency_key == shop.acts[0][2] != own.idempotency_key
    assert credential.where == (shop.url,)


# ------------------------------------------------------------------------------------------------------ nothing rests


@quick
def test_no_secret_is_left_on_disk(broker: TestBroker, shop: Shop, tmp_path: Path) -> None:
    secret = "sk-live-made-up-api-key"
    broker.secret("psp", secret, hosts=["psp.example"])
    static = {"effect": "once", "issuer": "static", "params": {"secret": "psp"}}
    broker.allow("agent", {**shop.tools(charge="once"), "use": static})
    tokens: list[str] = []

    @stepgrant.tool
    def use() -> str:
        tokens.append(stepgrant.current_credential().field("value"))
        raise ValueError(f"psp refused {tokens[0]}")

    @stepgrant.tool
    def charge() -> str:
        tokens.append(stepgrant.current_credential().field("token"))
        return tokens[-1]

    with stepgrant.run("order-991", **at(broker), input={"a": 1}) as held:
        with pytest.raises(errors.SecretInResult):
            charge()
        with pytest.raises(ValueError, match="psp refused"):
            use()
        held.fail()

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(tokens) == 2
    assert files
    for path in files:
        data = path.read_bytes()
        for token in tokens:
            assert token.encode() not in data, path
