"""Decorators that are put where they cannot be meant, or told what cannot be: named at once, and how it is written."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest

import stepgrant
from stepgrant import Credential, Inject, errors

TEXT = 'is a text like "charge-{invoice}", or a function of the arguments, not '
EXCEPTIONS = "charge: safe_exceptions= are exception types in a list, like [httpx.ConnectError], not "


def charge(invoice: str, amount: int = 5) -> dict[str, int]:
    return {invoice: amount}


def yields() -> Iterator[int]:
    yield 1


async def ayields() -> AsyncIterator[int]:
    yield 1


def bare(invoice: str, cred: Credential) -> None:
    """Asks for a credential in a way that nobody understands."""


class Shop:
    def __call__(self, invoice: str) -> None:
        """An object that can be called."""

    def method(self, invoice: str) -> str:
        return invoice


tool: Any = stepgrant.tool  # a type checker would refuse most of this, too
step: Any = stepgrant.step
agent: Any = stepgrant.agent


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: tool("charge"), "'charge' is no function; a name is given as @stepgrant.tool(name='charge')"),
        (lambda: tool()("charge"), "a name is given as @stepgrant.tool(name='charge')"),
        (lambda: tool(Shop), "Shop is no function but a class"),
        (lambda: tool(Shop()), "put @stepgrant.tool directly on a `def` or `async def`"),
        (lambda: tool(Shop().method), "Shop.method is no function; put @stepgrant.tool directly"),
        (lambda: tool(functools.partial(charge, "a")), "put @stepgrant.tool directly on a `def`"),
        (lambda: tool(staticmethod(charge)), "put @staticmethod above @stepgrant.tool, not below it"),
        (lambda: tool(classmethod(lambda cls: cls)), "put @classmethod above @stepgrant.tool, not below it"),
        (lambda: tool(bare), "nobody could give cred: a credential is asked for with Annotated[Credential, Inject]"),
        (lambda: step(Shop), "Shop is no function but a class"),
        (lambda: step(staticmethod(charge)), "put @staticmethod above @stepgrant.step"),
        (lambda: step(yields), "yields; a step has one result"),
        (lambda: step(5), "a step's name is a text, not 5"),
        (lambda: step(""), "a step's name is a text, not ''"),
        (lambda: step("plan", 5), "step('plan', ...): int cannot be called"),
        (lambda: agent(charge), '@stepgrant.agent("billing") needs the name that the workload is enrolled for'),
        (lambda: agent(""), "needs the name that the workload is enrolled for, not ''"),
        (lambda: agent("the billing"), "up to 128 letters, digits and"),
        (lambda: agent("a" * 129), "up to 128 letters, digits and"),
        (lambda: agent("billing")(Shop), "Shop is no function but a class"),
        (lambda: agent("billing")(staticmethod(charge)), "put @staticmethod above @stepgrant.agent"),
        (lambda: agent("billing")(yields), "yields; an agent has one result"),
        (lambda: agent("billing")(ayields), "yields; an agent has one result"),
        (lambda: agent("billing")(agent("billing")(charge)), "<agent billing: charge> is an agent already"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_decorator_where_it_cannot_be(made: Callable[[], Any], said: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        made()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "made",
    [
        tool,
        lambda bound: tool(effect="once", reconcile=bound)(charge),
        agent,
        lambda bound: agent("billing")(agent("billing")(bound)),
    ],
    ids=itertools.count(),
)
def test_a_refusal_shows_nothing_of_what_is_bound(made: Callable[[Any], Any]) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        made(functools.partial(charge, "sk_live_1"))
    assert "sk_live_1" not in str(caught.value)


@pytest.mark.parametrize("called", [Shop(), Shop().method, functools.partial(charge, "inv_1")], ids=itertools.count())
def test_an_agent_is_whatever_can_be_called(called: Callable[..., Any]) -> None:
    assert agent("billing")(called).function is called


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"step_id": 5}, f"charge: step_id= {TEXT}5"),
        ({"step_id": ""}, f"charge: step_id= {TEXT}''"),
        ({"resource": str}, f"charge: resource= {TEXT}<class 'str'>"),
        ({"idempotency_key": ["a"]}, f"charge: idempotency_key= {TEXT}['a']"),
        ({"step_id": "x-{invoice"}, "charge: step_id= 'x-{invoice' cannot be read (expected '}' before end of string)"),
        ({"step_id": "x-}"}, "braces hold the name of a parameter, {{ and }} are braces"),
        ({"step_id": "x-{}"}, "charge: step_id= 'x-{}': braces hold the name of a parameter, such as {invoice}"),
        ({"step_id": "{invoice!z}"}, "braces hold the name of a parameter, such as {invoice}"),
        ({"step_id": "{amount:{width}}"}, "names ['width'], which are no parameters; there is amount, invoice"),
        ({"resource": "{invoice.a}{other[0]}"}, "resource= names ['other'], which are no parameters"),
        ({"settle": "5"}, "charge: settle= is a number of seconds, 0 or more, not '5'"),
        ({"settle": None}, "charge: settle= is a number of seconds, 0 or more, not None"),
        ({"settle": True}, "charge: settle= is a number of seconds, 0 or more, not True"),
        ({"settle": -1}, "charge: settle= is a number of seconds, 0 or more, not -1"),
        ({"settle": float("nan")}, "charge: settle= is a number of seconds, 0 or more, not nan"),
        ({"safe_exceptions": ValueError}, f"{EXCEPTIONS}<class 'ValueError'>"),
        ({"safe_exceptions": "ValueError"}, f"{EXCEPTIONS}'ValueError'"),
        ({"safe_exceptions": [ValueError, ValueError()]}, EXCEPTIONS),
        ({"reconcile": "look"}, "charge: reconcile= is a function that takes the step in doubt and returns stepgrant."),
        ({"reconcile": Shop()}, "charge: reconcile= is a function"),
        ({"name": 5}, "tool name 5 is not up to 117 letters"),
        ({"name": ""}, "tool name '' is not up to 117 letters"),
        ({"effect": ["once"]}, "charge: effect is one of read, idempotent, once, not ['once']"),
        ({"retry_failed": "no"}, "charge: retry_failed= is True or False"),
        ({"certificate": 1}, "charge: certificate= is True or False"),
    ],
    ids=itertools.count(),
)
def test_declaration_of_a_wrong_kind(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        stepgrant.tool(**declared)(charge)
    assert said in str(caught.value)
    if "name" not in declared and "{" not in str(declared):
        with pytest.raises(errors.ConfigurationError) as other:
            stepgrant.declare("charge", **declared)
        assert said in str(other.value)


@pytest.mark.parametrize("template", ["x-{topic}", "x-{", 5, ""], ids=str)
def test_step_id_of_a_step_that_cannot_be_made(template: Any) -> None:
    def plan(theme: str) -> str:
        return theme

    with pytest.raises(errors.ConfigurationError, match="plan: step_id="):
        stepgrant.step("plan", step_id=template)(plan)
    with pytest.raises(errors.ConfigurationError, match="plan: step_id="):
        stepgrant.step("plan", lambda: 1, step_id=template)


def test_what_is_meant_is_taken() -> None:
    """Templates of every right kind; methods of each kind; a bound method as an agent."""

    class Till:
        @staticmethod
        @stepgrant.tool(step_id="{invoice!s:>{width}}-{{x}}", resource=lambda args: args["invoice"])
        def static(invoice: str, width: int = 9) -> str:
            return invoice[:width]

        @classmethod
        @stepgrant.tool(name="classy", step_id="always", settle=0.5, safe_exceptions=(OSError,))
        def classy(cls, invoice: str, cred: Annotated[Credential, Inject]) -> str:
            return invoice + cred.kind

    assert stepgrant.tool(charge).spec.settle == 0
    assert Till.static.spec.step_id == "{invoice!s:>{width}}-{{x}}"
    assert Till.classy.spec.safe_exceptions == (OSError,)
    assert stepgrant.agent("billing")(Shop().method)("a") == "a"
    assert repr(stepgrant.agent("billing")(Shop().method)) == "<agent billing: Shop.method>"
