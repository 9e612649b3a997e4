"""Declarations that cannot be meant, and tools that are not ours to decorate."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import pytest

import stepgrant
from faces import Face, faces
from scripted import ScriptedBroker, scripted
from stepgrant import Credential, Inject, errors


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ScriptedBroker]:
    with scripted(tmp_path) as made:
        yield made


def charge(
    invoice_id: str, cred: Annotated[Credential, Inject], amount: int = 5, *, note: str | None = None
) -> dict[str, Any]:
    """Charge an invoice."""
    return {"invoice": invoice_id, "amount": amount, "note": note, "kind": cred.kind}


async def acharge(invoice_id: str, *, cred: Annotated[Credential, Inject], amount: int = 5) -> dict[str, Any]:
    """Charge an invoice."""
    return {"invoice": invoice_id, "amount": amount, "kind": cred.kind}


# -------------------------------------------------------------------------------------- declarations that are refused


class Order(NamedTuple):
    number: int


class Line(TypedDict):
    sku: str
    count: int


@pytest.mark.parametrize(
    "hint",
    [
        bytes, set[str], datetime, Decimal, Annotated[bytes, "image"], list[Decimal], dict[int, str],
        tuple[str, bytes], set[int] | bytes, frozenset, Iterator[str], complex, Credential, dict[str, list[datetime]],
    ],
    ids=str,
)  # fmt: skip
def test_result_that_can_never_be_json_is_refused_before_anything_runs(hint: Any) -> None:
    def tool() -> None: ...

    tool.__annotations__ = {"return": hint}
    with pytest.raises(errors.ConfigurationError, match="tool cannot be recorded: its declared result is not JSON"):
        stepgrant.tool(tool)
    with pytest.raises(errors.ConfigurationError, match="tool cannot be recorded"):
        stepgrant.step(tool)


@pytest.mark.parametrize(
    "hint",
    [
        None, str, int, float, bool, list, dict, tuple, Any, object, dict[str, Any], list[int], tuple[int, ...], Order,
        Line, list[Line], str | bytes, Mapping[str, Sequence[str]], Literal["a", 1], Annotated[str, "text"],
        Line | None, dict[str, object], Ellipsis,
    ],
    ids=str,
)  # fmt: skip
def test_result_that_may_be_json_is_accepted(hint: Any) -> None:
    def tool() -> None: ...

    tool.__annotations__ = {"return": hint}
    assert stepgrant.tool(tool).spec.name == "tool"


def yields() -> Iterator[int]:
    yield 1


async def ayields() -> AsyncIterator[int]:
    yield 1


def unresolved(order: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821  # what the test is about
    """A hint that only a type checker would know."""


def positional(cred: Annotated[Credential, Inject], /) -> None:
    """Cannot be given by name."""


def not_a_credential(cred: Annotated[str, Inject]) -> None:
    """Inject marks credentials."""


def simple(order: str) -> None:
    """Nothing wrong."""


@pytest.mark.parametrize(
    ("function", "declared", "said"),
    [
        (yields, {}, "yields; a step has one result"),
        (ayields, {}, "yields; a step has one result"),
        (unresolved, {}, "the type hint 'Missing' cannot be resolved"),
        (positional, {}, "must be an ordinary or keyword-only parameter"),
        (not_a_credential, {}, "Inject marks a Credential"),
        (len, {}, "is no function"),
        (staticmethod(simple), {}, "is no function"),
        (simple, {"effect": "twice"}, "effect is one of read, idempotent, once"),
        (simple, {"effect": "read", "reconcile": lambda step: step}, "only a `once` tool can be in doubt"),
        (simple, {"reconcile": lambda: None}, "a reconcile hook takes the step"),
        (simple, {"reconcile": lambda step, more: (step, more)}, "a reconcile hook takes the step"),
        (simple, {"settle": -1}, "settle= is a number of seconds"),
        (simple, {"settle": float("inf")}, "settle= is a number of seconds"),
        (simple, {"safe_exceptions": [KeyboardInterrupt]}, "safe_exceptions= are exception types"),
        (simple, {"step_id": "{invoice}"}, "step_id= names ['invoice'], which are no parameters"),
        (simple, {"resource": "{order.number}{other}"}, "resource= names ['other'], which are no parameters"),
        (simple, {"name": "white space"}, "give the tool a name="),
        (simple, {"name": "x" * 118}, "give the tool a name="),
        (simple, {"name": "~own"}, "give the tool a name="),
    ],
)
def test_declaration_that_cannot_be_meant(function: Any, declared: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        stepgrant.tool(**declared)(function)

    assert said in str(caught.value)


def test_tool_is_guarded_once() -> None:
    with pytest.raises(errors.ConfigurationError, match="simple is a guarded tool already"):
        stepgrant.tool(stepgrant.tool(simple))


def test_blocking_tool_has_no_hook_that_needs_awaiting() -> None:
    async def look(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
        return stepgrant.unknown(evidence=step.key)

    with pytest.raises(errors.ConfigurationError, match="look is `async def`, but its tool is not"):
        stepgrant.tool(reconcile=look)(simple)
    assert stepgrant.tool(reconcile=look)(acharge).spec.reconcile is not None


@faces
@pytest.mark.parametrize(
    ("template", "said"),
    [
        (lambda _: "", "must be a text that is not empty"),
        (lambda _: 5, "must be a text that is not empty"),
        (lambda args: args["other"], "cannot be made from the arguments"),
        ("{invoice_id.number}", "cannot be made from the arguments"),
    ],
    ids=["empty", "number", "missing", "attribute"],
)
async def test_template_that_gives_no_text(face: Face, broker: ScriptedBroker, template: Any, said: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=said):
        async with face.run(**broker.at()):
            await face.call(face.tool(charge, step_id=template), "inv_9")

    assert broker.calls("begin") == []


# -------------------------------------------------------------------------------------------------- tools of others


async def test_declared_tool_is_guarded_by_its_name(broker: ScriptedBroker) -> None:
    stepgrant.declare("tracker.create_issue", effect="idempotent", step_id="issue-{title}")
    seen = []

    def create_issue(title: str) -> dict[str, str]:
        seen.append(stepgrant.current_step())
        return {"title": title}

    async def acreate_issue(title: str) -> dict[str, str]:
        return create_issue(title)

    with stepgrant.run("job", agent="agent", **broker.at()):
        assert stepgrant.guard_call("tracker.create_issue", {"title": "a"}, create_issue) == {"title": "a"}
        got = await stepgrant.aguard_call("tracker.create_issue", {"title": "b"}, acreate_issue, step_id="mine")
        assert got == {"title": "b"}
        assert stepgrant.guard_call("nobody.declared", {}, lambda: 1) == 1

    declared, other, unknown = broker.calls("begin")
    assert (declared.path.split("/")[5], other.path.split("/")[5]) == ("issue-a", "mine")
    assert declared.body["effect"] == "idempotent"
    assert "effect" not in unknown.body  # the strictest is the wire's default
    assert [step.args for step in seen] == [{"title": "a"}, {"title": "b"}]


def test_one_name_is_declared_with_one_meaning() -> None:
    first = stepgrant.declare("one.meaning", effect="read")
    assert stepgrant.declare("one.meaning", effect="read") is first
    with pytest.raises(errors.ConfigurationError, match=r"one\.meaning was declared before, with another meaning"):
        stepgrant.declare("one.meaning", effect="once")


async def test_coroutine_function_needs_the_other_call(broker: ScriptedBroker) -> None:
    async def never() -> None:
        pytest.fail("nobody awaits this")

    function: Callable[[], object] = never
    with (
        pytest.raises(errors.ConfigurationError, match="use aguard_call"),
        stepgrant.run("job", agent="agent", **broker.at()),
    ):
        stepgrant.guard_call("github.star", {}, function)
    assert broker.calls("begin") == []


def test_errors_of_a_call_survive_pickling() -> None:
    """What a tool raises crosses process pools and frameworks' checkpoints."""
    for error in (errors.StepFailed(step="a", status="failed", error="E: x"), errors.ResultWithheld(step="a")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  # what was just dumped
        assert (type(again), again.__dict__, str(again)) == (type(error), error.__dict__, str(error))
