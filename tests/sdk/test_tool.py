"""Declaring tools: what callers and frameworks see of them, and declarations that cannot be meant."""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

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


# ------------------------------------------------------------------------------------------------- the visible side


@pytest.mark.parametrize("function", [charge, acharge], ids=["def", "async def"])
def test_nobody_sees_the_injected_parameter(function: Any) -> None:
    tool = stepgrant.tool(function)

    assert "cred" not in inspect.signature(tool).parameters
    assert "cred" not in typing.get_type_hints(tool, include_extras=True)
    assert "cred" not in tool.__annotations__
    assert "cred" not in str(inspect.signature(tool, follow_wrapped=True))
    assert not hasattr(tool, "__wrapped__")
    assert "Credential" not in str(inspect.getfullargspec(tool).annotations)


def test_hints_are_resolved_where_the_function_was_written() -> None:
    """With `from __future__ import annotations`, as here, string hints would resolve in the wrapper's module."""
    tool = stepgrant.tool(charge)

    assert charge.__annotations__["amount"] == "int"
    assert tool.__annotations__ == {
        "invoice_id": str, "amount": int, "note": str | None, "return": dict[str, Any]
    }  # fmt: skip
    assert inspect.signature(tool).parameters["amount"].annotation is int


def test_a_tool_looks_like_its_function() -> None:
    tool = stepgrant.tool(charge)

    assert (tool.__name__, tool.__doc__, tool.__module__) == ("charge", "Charge an invoice.", __name__)
    function: object = tool
    assert inspect.isfunction(function)
    assert not inspect.iscoroutinefunction(tool)
    assert inspect.iscoroutinefunction(stepgrant.tool(acharge))
    assert tool.spec == stepgrant.ToolSpec("charge")


@pytest.mark.parametrize(
    "function",
    [
        lambda cred, a, b=2: (cred, a, b),
        lambda a, cred, b=2: (cred, a, b),
        lambda a, b=2, cred=None: (cred, a, b),
        lambda a, b=2, *, cred: (cred, a, b),
    ],
    ids=["first", "middle", "last", "keyword"],
)
async def test_credential_comes_where_it_is_asked_for(function: Any, broker: ScriptedBroker) -> None:
    got: dict[str, Any] = {}
    signature = inspect.signature(function)

    def tool(*args: Any, **kwargs: Any) -> None:
        got.update(signature.bind(*args, **kwargs).arguments)

    tool.__signature__ = signature  # type: ignore[attr-defined]  # as a decorated function has
    tool.__annotations__ = {"cred": Annotated[Credential, Inject]}
    guarded = stepgrant.tool(name="charge")(tool)
    with stepgrant.run("job", agent="agent", **broker.at()):
        guarded(1, b=3)

    assert (got["a"], got["b"]) == (1, 3)
    assert isinstance(got["cred"], Credential)
    assert broker.calls("begin")[0].body["action"]["args"] == {"a": 1, "b": 3}


@faces
async def test_arguments_are_the_bound_call_with_defaults(face: Face, broker: ScriptedBroker) -> None:
    tool = face.tool(charge)
    async with face.run(**broker.at()):
        result = await face.call(tool, "inv_9")

    assert result == {"invoice": "inv_9", "amount": 5, "note": None, "kind": "jwt"}
    assert broker.calls("begin")[0].body == {
        "epoch": 1,
        "action": {"tool": "charge", "args": {"invoice_id": "inv_9", "amount": 5, "note": None}},
        "id_source": "ordinal",
    }


async def test_receiver_of_a_method_is_no_argument(broker: ScriptedBroker) -> None:
    class Shop:
        @stepgrant.tool(resource="order/{order}")
        def refund(self, order: str, *more: str, **options: int) -> str:
            return f"{order}{more}{options}"

    with stepgrant.run("job", agent="agent", **broker.at()):
        assert Shop().refund("991", "a", fee=3) == "991('a',){'fee': 3}"
        assert Shop.refund.with_id("other")(Shop(), "992") == "992(){}"

    first, second = (seen.body["action"] for seen in broker.calls("begin"))
    assert first == {
        "tool": "refund", "resource": "order/991", "args": {"order": "991", "more": ["a"], "options": {"fee": 3}}
    }  # fmt: skip
    assert second["args"] == {"order": "992", "more": [], "options": {}}


async def test_wrong_call_is_a_type_error_and_no_step(broker: ScriptedBroker) -> None:
    tool = stepgrant.tool(charge)
    with stepgrant.run("job", agent="agent", **broker.at()):
        with pytest.raises(TypeError, match="missing a required argument: 'invoice_id'"):
            tool()
        with pytest.raises(TypeError, match="unexpected keyword argument 'cred'"):
            tool("inv_9", cred="forged")

    assert broker.calls("begin") == []


@faces
@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Decimal("1.5"), "/invoice_id"),
        ({"at": datetime(2026, 1, 1)}, "/invoice_id/at"),  # noqa: DTZ001  # no time is meant
        ([float("inf")], "/invoice_id/0"),
        (2**60, "/invoice_id"),
    ],
    ids=["decimal", "datetime", "infinity", "integer"],
)
async def test_argument_that_is_not_json_is_named_and_nothing_is_asked(
    face: Face, broker: ScriptedBroker, value: Any, path: str
) -> None:
    tool = face.tool(charge)
    with pytest.raises(errors.NotJson) as caught:
        async with face.run(**broker.at()):
            await face.call(tool, value)

    assert (caught.value.what, caught.value.path) == ("the arguments of charge", path)
    assert broker.calls("begin") == []


@faces
async def test_outside_of_a_run_a_tool_is_refused(face: Face) -> None:
    with pytest.raises(errors.ConfigurationError, match="charge was called outside of a run"):
        await face.call(face.tool(charge), "inv_9")


@faces
async def test_everything_that_was_declared_is_asked_for(face: Face, broker: ScriptedBroker) -> None:
    tool = face.tool(
        charge,
        effect="idempotent",
        name="psp.charge",
        idempotency_key=lambda args: f"charge:{args['invoice_id']}",
        step_id="charge-{invoice_id}",
        resource="invoice/{invoice_id}",
        settle=2.5,
        retry_failed=True,
    )
    async with face.run(**broker.at()):
        await face.call(tool, "inv_9")

    (begin,) = broker.calls("begin")
    assert begin.path == "/v1/runs/run_01scripted/steps/charge-inv_9/begin"
    assert begin.body == {
        "epoch": 1,
        "action": {
            "tool": "psp.charge",
            "resource": "invoice/inv_9",
            "args": {"invoice_id": "inv_9", "amount": 5, "note": None},
        },
        "effect": "idempotent",
        "idempotency_key": "charge:inv_9",
        "settle_s": 2.5,
        "retry_failed": True,
    }
