"""A model that is asked again after a crash: new ids, another memo, another order, a completed call once more.

The model is a script, and so is the person. Whatever the ids are, each effect is there once, or somebody is asked.
"""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import httpx

from agents import asking, calling
from faces import Face, faces
from shop import Shop, quick
from stepgrant import errors
from stepgrant.testing import TestBroker

_ids = itertools.count(1)


class CrashError(Exception):
    """The end of a process."""


class Model:
    """Asks for calls of `charge`, in each process under ids that nobody saw before."""

    def __init__(self, face: Face, broker: TestBroker, shop: Shop, **declared: Any) -> None:
        self._face = face
        self._broker = broker
        self._tool = face.tool(calling(shop, "charge"), **declared)
        self.shop = shop

    async def asks(self, *orders: str | dict[str, Any]) -> list[Any]:
        """One process: what each call came to. It ends in a crash, and the run is parked."""
        broker: Any = self._broker
        came: list[Any] = []
        at: dict[str, Any] = {"agent": "agent", "url": broker.url, "workload_key": broker.key_of("agent")}
        with suppress(CrashError):
            async with self._face.run("order-991", **at):
                for order in orders:
                    args = {"order": order} if isinstance(order, str) else order
                    came.append(await self._one(args))
                raise CrashError
        return came

    async def _one(self, args: dict[str, Any]) -> Any:
        try:
            answer = await self._face.call(self._tool.with_id(f"toolu_{next(_ids)}"), **args)
        except (errors.StepNotRun, httpx.HTTPError) as error:
            return error
        return answer["order"]

    def person(self, error: Any, verdict: str) -> None:
        """A person's word on what the agent was told."""
        assert isinstance(error, errors.SuspectedDuplicate)
        broker: Any = self._broker
        (run,) = broker.host.runs()
        token = broker.host.operator(f"olga {next(_ids)}")
        answer = httpx.post(
            f"{broker.url}/v1/runs/{run.id}/steps/{error.step}/duplicate",
            json={"verdict": verdict},
            headers={"authorization": f"Bearer {token}", "idempotency-key": f"key-{next(_ids)}"},
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text

    @property
    def charged(self) -> list[str]:
        """What is in the shop's book, in its order."""
        return [args["order"] for _, args, _ in self.shop.acts]

    def is_sound(self) -> bool:
        """The tables are what the ledger says."""
        broker: Any = self._broker
        return list(broker.host.ledger_findings()) == []


@faces
@quick
async def test_new_ids_for_everything(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    model = Model(face, broker, shop, reconcile=asking(shop, "charge"))
    shop.faults.append("lost")
    lost, done = await model.asks("1", "2")
    assert isinstance(lost, httpx.HTTPError)
    assert done == "2"

    settled, asked = await model.asks("1", "2")  # the hook finds the first; a person is asked about the second
    assert settled == "1"
    assert isinstance(asked, errors.SuspectedDuplicate)
    model.person(asked, "replay")
    asked, replayed = await model.asks("1", "2")
    assert replayed == "2"
    model.person(asked, "replay")
    for _ in range(2):
        assert await model.asks("1", "2") == ["1", "2"]
    assert await model.asks("2", "1", "3") == ["2", "1", "3"]
    assert model.charged == ["1", "2", "3"]
    assert model.is_sound()


@faces
@quick
async def test_another_memo(face: Face, broker: TestBroker, shop: Shop) -> None:
    """Whether it is the same intention nobody can know: it waits until the doubt is settled."""
    broker.allow("agent", shop.tools(charge="once"))
    looks: list[str] = []
    model = Model(face, broker, shop, reconcile=lambda step: looks.append(step.key))
    shop.faults.append("lost")
    await model.asks("1")
    (waits,) = await model.asks({"order": "1", "amount": 6})
    assert isinstance(waits, errors.InDoubt)
    assert waits.blocked
    assert (model.charged, looks) == (["1"], [])
    assert model.is_sound()


@faces
@quick
async def test_a_retry_after_an_error_under_a_new_id(face: Face, broker: TestBroker, shop: Shop) -> None:
    """The loop shows the model an error, and the model asks for the same call again, all in one process."""
    broker.allow("agent", shop.tools(charge="once"))
    model = Model(face, broker, shop)
    shop.faults.append("lost")
    lost, waits, other = await model.asks("1", "1", "2")
    assert isinstance(lost, httpx.HTTPError)
    assert isinstance(waits, errors.InDoubt)
    assert waits.blocked
    assert other == "2"
    assert model.charged == ["1", "2"]


@faces
@quick
async def test_another_order_where_policy_knows_the_answer(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", {"charge": {**shop.tools(charge="once")["charge"], "duplicate": "replay"}})
    model = Model(face, broker, shop)
    assert await model.asks("1", "2", "1") == ["1", "2", "1"]
    assert await model.asks("1", "1", "2", "1") == ["1", "1", "2", "1"]
    assert model.charged == ["1", "2", "1", "1"]  # three were asked for in one process: so three were meant
    assert await model.asks("2", "1", "1", "1") == ["2", "1", "1", "1"]
    assert model.charged == ["1", "2", "1", "1"]
    assert model.is_sound()


@faces
@quick
async def test_a_completed_call_once_more_that_is_meant(face: Face, broker: TestBroker, shop: Shop) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    model = Model(face, broker, shop)
    assert await model.asks("1") == ["1"]
    (asked,) = await model.asks("1")
    assert isinstance(asked, errors.SuspectedDuplicate)
    assert model.charged == ["1"]
    model.person(asked, "run")
    assert await model.asks("1") == ["1"]
    assert model.charged == ["1", "1"]
    assert model.is_sound()


@faces
@quick
async def test_an_idempotent_call_keeps_the_key_that_its_target_knows(
    face: Face, broker: TestBroker, shop: Shop
) -> None:
    broker.allow("agent", shop.tools(charge="idempotent"))
    model = Model(face, broker, shop, effect="idempotent")
    shop.faults.append("lost")
    (lost,) = await model.asks("1")
    assert isinstance(lost, httpx.HTTPError)
    assert await model.asks("1") == ["1"]
    keys = [key for _, _, key in shop.acts]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert model.is_sound()
