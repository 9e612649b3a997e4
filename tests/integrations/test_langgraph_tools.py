"""What the watched copy of a LangChain tool knows: the arguments, and whether the body ran."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool, Tool
from langchain_core.tools import tool as langchain_tool
from langgraph.types import Command
from pydantic import BaseModel

import stepgrant
from stepgrant import errors
from stepgrant.integrations._langgraph_tools import InvalidArguments, Watched, arguments_of, returns_command, spec_of


class Colour(Enum):
    RED = "red"


class Place(BaseModel):
    city: str
    zone: int = 1


def go(place: Place, colour: Colour = Colour.RED, many: float = 1.0) -> str:
    """Go."""
    return f"{place.city} {place.zone} {colour.value} {many}"


def call(**args: Any) -> Any:  # noqa: ANN401 - of LangChain
    return {"name": "any", "args": args, "id": "c1", "type": "tool_call"}


def test_arguments_are_json_of_what_the_body_gets() -> None:
    decided = arguments_of(langchain_tool(go), {"place": {"city": "Bern"}, "many": "2"})
    assert decided == {"place": {"city": "Bern", "zone": 1}, "colour": "red", "many": 2.0}
    watched = Watched(langchain_tool(go), decided)
    assert watched.tool.invoke(call(place={"city": "Bern"}, many="2")).content == "Bern 1 red 2.0"
    assert watched.entered
    assert watched.raised is None


@pytest.mark.parametrize("args", [{}, {"place": {"city": "Bern"}, "colour": "blue"}])
def test_what_the_schema_refuses_is_refused_here(args: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments):
        arguments_of(langchain_tool(go), args)


def test_nested_arguments_are_compared() -> None:
    watched = Watched(langchain_tool(go), {"place": {"city": "Bern", "zone": 1}, "colour": "red", "many": 1})
    with pytest.raises(errors.NotExecuted, match="'place'"):
        watched.tool.invoke(call(place={"city": "Bern", "zone": 2}))
    assert not watched.entered
    assert isinstance(watched.raised, errors.NotExecuted)


def test_tool_with_a_json_schema_gets_what_the_model_said() -> None:
    """As tools of MCP servers are."""
    got: list[dict[str, Any]] = []
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tool = StructuredTool(name="far", description="Far.", args_schema=schema, func=lambda **args: got.append(args))
    decided = arguments_of(tool, {"a": 1, "b": [2]})
    assert decided == {"a": 1, "b": [2]}
    Watched(tool, decided).tool.invoke(call(a=1, b=[2]))
    assert got == [{"a": 1, "b": [2]}]
    with pytest.raises(errors.NotExecuted, match="'c'"):
        Watched(tool, decided).tool.invoke(call(a=1, b=[2], c=3))
    assert len(got) == 1


def test_tool_of_one_text_is_compared_too() -> None:
    tool = Tool(name="say", description="Say.", func=lambda text: text)
    decided = arguments_of(tool, {"__arg1": "hello"})
    assert Watched(tool, decided).tool.invoke(call(__arg1="hello")).content == "hello"
    with pytest.raises(errors.NotExecuted):
        Watched(tool, decided).tool.invoke(call(__arg1="bye"))


def test_tool_that_is_only_checked_never_runs() -> None:
    done: list[int] = []

    def act(number: int) -> str:
        """Act."""
        done.append(number)
        return "done"

    with pytest.raises(InvalidArguments):
        Watched(langchain_tool(act), None).tool.invoke(call(number=1))
    assert done == []


def test_body_that_cannot_be_watched_is_taken_to_have_run() -> None:
    """It overrides `invoke`: that the body was not entered says nothing."""

    class Own(BaseTool):
        name: str = "own"
        description: str = "Own."

        def invoke(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - as its base
            return "around the body"

        def _run(self) -> str:
            return "the body"

    assert not Watched(Own(), {}).conclusive
    assert Watched(langchain_tool(go), {}).conclusive


def test_last_try_of_a_body_counts() -> None:
    """Middleware inside of us may call it again."""
    answers: list[Any] = [ValueError("once"), "well"]

    def act() -> str:
        """Act."""
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    watched = Watched(langchain_tool(act), {})
    with pytest.raises(ValueError, match="once"):
        watched.tool.invoke(call())
    assert isinstance(watched.raised, ValueError)
    assert watched.tool.invoke(call()).content == "well"
    assert watched.raised is None


def test_declaration_is_the_decorators_then_the_declared_one() -> None:
    @stepgrant.tool(effect="read", name="atlas.find")
    async def find(city: str) -> str:
        """Find."""
        return city

    spec = spec_of(langchain_tool(find))
    assert (spec.name, spec.effect) == ("atlas.find", "read")
    stepgrant.declare("go", effect="idempotent")
    assert spec_of(langchain_tool(go)).effect == "idempotent"
    assert spec_of(Tool(name="say", description="Say.", func=str)).effect == "once"


@pytest.mark.parametrize(
    ("hint", "refused"),
    [
        (Command, True),
        (Command[str], True),
        (Command[str] | str, True),
        (list[Command[str]], True),
        (str, False),
        (list[str], False),
        (Any, False),
    ],
    ids=str,
)
def test_declared_command_is_known_before_anything_runs(hint: Any, *, refused: bool) -> None:  # noqa: ANN401 - a hint
    def act() -> Any:  # noqa: ANN401 - set below
        """Act."""

    act.__annotations__["return"] = hint
    assert returns_command(langchain_tool(act)) is refused
