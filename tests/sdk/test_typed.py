"""What a type checker knows of decorated functions, and that it is what callers see when the program runs.

mypy reads this file with all others: `assert_type` says what it has to know, and a `type: ignore` that nothing needs is
an error, so each of them is a call that it has to refuse.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, assert_type

import stepgrant
from stepgrant import Credential, Inject

if TYPE_CHECKING:
    from stepgrant._tool_types import BoundTool, Tool, UncheckedTool


@stepgrant.tool
def charge(invoice: str, amount: int = 5) -> dict[str, int]:
    return {invoice: amount}


@stepgrant.tool(effect="once", step_id="pay-{invoice}")
async def pay(invoice: str, *, amount: int) -> dict[str, Any]:
    return {invoice: amount}


@stepgrant.tool(effect="read")
def first(cred: Annotated[Credential, Inject], invoice: str, amount: int = 5) -> list[str]:
    return [cred.kind, invoice, str(amount)]


@stepgrant.tool
async def afirst(cred: Annotated[Credential, Inject], invoice: str) -> str:
    return cred.kind + invoice


@stepgrant.tool()
def later(invoice: str, cred: Annotated[Credential, Inject], amount: int = 5) -> int:
    return len(invoice + cred.kind) + amount


@stepgrant.tool
def anything(thing: object, amount: int) -> int:
    return len(repr(thing)) + amount


class Shop:
    @stepgrant.tool(name="shop.charge")
    def charge(self, invoice: str) -> int:
        return len(invoice)

    @stepgrant.tool(name="shop.pay")
    def pay(self, invoice: str, cred: Annotated[Credential, Inject]) -> int:
        return len(invoice + cred.kind)


@stepgrant.step
def plan(topic: str) -> list[str]:
    return [topic]


@stepgrant.step("aplan", step_id="aplan-{topic}")
async def aplan(topic: str) -> list[str]:
    return [topic]


@stepgrant.agent("billing")
def bill(order: str) -> dict[str, int]:
    return {order: 1}


@stepgrant.agent("billing")
async def abill(order: str, run: stepgrant.AsyncRun) -> int:
    return len(order + run.key)


@stepgrant.agent("billing")
def clock() -> int:
    return 5


if TYPE_CHECKING:

    def tools(shop: Shop) -> None:
        assert_type(charge("a"), dict[str, int])
        assert_type(charge(invoice="a", amount=5), dict[str, int])
        charge(5)  # type: ignore[arg-type]
        charge("a", price=5)  # type: ignore[call-arg]
        charge()  # type: ignore[call-arg]
        assert_type(charge.with_id("one")("a"), dict[str, int])
        charge.with_id("one")(5)  # type: ignore[arg-type]
        charge.prepare(5)  # type: ignore[arg-type]
        assert_type(charge.spec, stepgrant.ToolSpec)
        assert_type(shop.charge("a"), int)
        shop.charge(5)  # type: ignore[arg-type]
        assert_type(Shop.charge(shop, "a"), int)
        assert_type(shop.charge.spec, stepgrant.ToolSpec)

    def with_credentials(shop: Shop) -> None:
        assert_type(first("a", amount=5), list[str])
        assert_type(first(invoice="a"), list[str])
        first(5)  # type: ignore[arg-type]
        assert_type(later("a", amount=5), int)
        assert_type(later(invoice="a"), int)
        assert_type(anything(5, amount=5), int)
        assert_type(shop.pay("a"), int)

    async def coroutines() -> None:
        assert_type(await pay("a", amount=5), dict[str, Any])
        assert_type(await afirst("a"), str)
        await pay("a", 5)  # type: ignore[call-arg]
        await afirst(5)  # type: ignore[arg-type]

    def kinds() -> tuple[object, ...]:
        whole: Tool[[str], str] = stepgrant.tool(str.upper)
        bound: BoundTool[[str], int] = Shop().charge
        unchecked: UncheckedTool[int] = later
        plain: Callable[[str], dict[str, int]] = charge
        wrong: Callable[[int], dict[str, int]] = charge  # type: ignore[assignment]
        return whole, bound, unchecked, plain, wrong

    async def steps() -> None:
        assert_type(plan("a"), list[str])
        plan(5)  # type: ignore[arg-type]
        assert_type(await aplan("a"), list[str])
        await aplan(5)  # type: ignore[arg-type]
        assert_type(stepgrant.step("now", lambda: 5), int)

    async def agents() -> None:
        assert_type(bill.run("a", run_key="1"), dict[str, int])
        assert_type(bill.run(run_key="1"), dict[str, int])
        bill.run(5)  # type: ignore[arg-type]
        bill.start(5)  # type: ignore[arg-type]
        assert_type(bill, stepgrant.Agent[str, dict[str, int]])
        assert_type(abill, stepgrant.AsyncAgent[str, int])
        assert_type(await abill.run("a"), int)
        await abill.run(5)  # type: ignore[arg-type]
        await abill.start(5)  # type: ignore[arg-type]
        assert_type(clock.run(), int)


def shown(function: Any) -> str:  # noqa: ANN401 - whatever a decorator gives
    return str(inspect.signature(function))


def test_what_callers_see_is_what_a_checker_knows() -> None:
    assert shown(charge) == "(invoice: str, amount: int = 5) -> dict[str, int]"
    assert shown(pay) == "(invoice: str, *, amount: int) -> dict[str, typing.Any]"
    assert shown(first) == "(invoice: str, amount: int = 5) -> list[str]"
    assert shown(afirst) == "(invoice: str) -> str"
    assert shown(later) == "(invoice: str, amount: int = 5) -> int"
    assert shown(Shop().charge) == shown(Shop().pay) == "(invoice: str) -> int"
    assert shown(plan) == shown(aplan) == "(topic: str) -> list[str]"
    assert shown(bill) == "(order: 'str') -> 'dict[str, int]'"


def test_what_is_only_for_type_checkers_is_not_loaded_when_a_program_runs() -> None:
    code = "import stepgrant, sys; stepgrant.tool; stepgrant.agent; print('stepgrant._tool_types' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "False\n"
