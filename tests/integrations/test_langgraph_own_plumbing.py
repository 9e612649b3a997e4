"""Tools that bring their own `invoke` or `run`: nothing of ours is inside, so only decided calls get there."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.tools import tool as langchain_tool
from pydantic import BaseModel, BeforeValidator, SecretStr

from integrations.langgraph_script import CONFIG, GO, Scripted, agent_of, entries, node_of
from stepgrant import errors
from stepgrant.integrations._langgraph_tools import Watched, handed_on
from stepgrant.integrations.langgraph import thread
from stepgrant.testing import TestBroker


class Payment(BaseModel):
    """What the tool says it takes; the default does not fit, as is common."""

    amount: int
    note: str = None  # type: ignore[assignment]


class Lenient(BaseTool):
    """Reads the call itself, and asks no schema."""

    name: str = "pay"
    description: str = "Pay."
    args_schema: Any = Payment
    done: Any

    def invoke(self, input: Any, *_: Any, **__: Any) -> Any:  # noqa: A002, ANN401 - as its base
        self.done.append(input["args"])
        return ToolMessage("paid", tool_call_id=input["id"], name="pay")

    async def ainvoke(self, input: Any, *_: Any, **__: Any) -> Any:  # noqa: A002, ANN401 - as its base
        return self.invoke(input)

    def _run(self, **_: object) -> str:
        raise AssertionError("it never gets here")


@pytest.mark.parametrize("shape", [agent_of, node_of])
@pytest.mark.parametrize("face", ["sync", "async"])
async def test_only_what_was_decided_on_reaches_the_tool(
    face: str,
    shape: Any,  # noqa: ANN401 - makes a graph
    broker: TestBroker,
    means: dict[str, Any],
) -> None:
    """No call that its schema refuses; of another one nothing that the schema drops, and each value as checked."""
    done: list[Any] = []
    wrong = ("pay", {"amount": "all of it"}, "c1")
    right = ("pay", {"amount": "5", "to": "thief"}, "c2")
    model = Scripted([wrong], [right])
    graph = shape(model, Lenient(done=done))
    if face == "sync":
        with thread(graph, CONFIG, **means) as run:
            said, name = graph.invoke(GO, CONFIG), run.id
    else:
        async with thread(graph, CONFIG, **means) as arun:
            said, name = await graph.ainvoke(GO, CONFIG), arun.id
    gave = [one for one in said["messages"] if isinstance(one, ToolMessage)]
    assert [(one.status, one.tool_call_id) for one in gave] == [("error", "c1"), ("success", "c2")]
    assert "amount: Input should be a valid integer" in str(gave[0].content)
    assert done == [{"amount": 5}]
    assert [one.step for one in entries(broker, name, "step_prepared")] == ["c2"]


def test_a_runner_of_one_tool_alone_is_seen() -> None:
    """Set on the object, as some libraries patch tools."""

    def act() -> str:
        """Act."""
        return "done"

    tool = langchain_tool(act)
    assert Watched(tool, {}).conclusive
    vars(tool)["invoke"] = lambda *_, **__: "around the body"
    assert not Watched(tool, {}).conclusive


class Odd(BaseModel):
    """Two values that are others after JSON."""

    key: SecretStr = SecretStr("")
    who: Annotated[str, BeforeValidator(lambda value: value + "!")] = ""


@pytest.mark.parametrize(
    ("args", "decided", "path"),
    [
        ({"key": "k"}, {"key": "**********"}, "/key"),
        ({"who": "a"}, {"who": "a!"}, "/who"),
    ],
)
def test_what_json_would_change_is_not_handed_on(args: dict[str, Any], decided: dict[str, Any], path: str) -> None:
    with pytest.raises(errors.NotJson) as caught:
        handed_on(Lenient(done=[], args_schema=Odd), args, decided)
    assert caught.value.path == path


def test_what_json_would_spoil_is_not_handed_on() -> None:
    def size(value: str) -> int:
        if not isinstance(value, str):
            raise ValueError("a text")  # noqa: TRY004 - what pydantic expects
        return len(value)

    class Sized(BaseModel):
        size: Annotated[int, BeforeValidator(size)]

    with pytest.raises(errors.NotJson, match="a text"):
        handed_on(Lenient(done=[], args_schema=Sized), {"size": "abc"}, {"size": 3})


def test_a_call_of_a_json_schema_is_handed_on_whole() -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}}
    decided = {"amount": 5, "to": "a"}
    assert handed_on(Lenient(done=[], args_schema=schema), decided, decided) == decided
