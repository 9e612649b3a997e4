"""A LangChain tool as the guard needs it: what it declares, what it will run with, and whether it ran.

Rules:
* `ToolNode` and `BaseTool` turn exceptions into messages before a wrapper sees them. "The tool raised" must not be
  recorded as a result, so a copy of the tool notes what its body did.
* What is decided on are the arguments that the body gets: checked by the tool's own schema, with defaults, without what
  LangGraph injects. Another argument at the body than was decided on, and the body does not run.
* A tool whose body cannot be watched (it overrides `run` or `invoke`) is taken to have run. It may read a call as it
  likes, so it gets none that its schema refuses, and of others only what was decided on.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, Tool
from langchain_core.utils.pydantic import get_fields
from langgraph.types import Command
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from stepgrant import _errors as e
from stepgrant._results import encode
from stepgrant._spec import ToolSpec
from stepgrant._tool import declared_as

__all__ = ["InvalidArguments", "Watched", "arguments_of", "handed_on", "is_error", "returns_command", "spec_of"]

_OURS: Final = (BaseTool, StructuredTool, Tool)
_RUNNERS: Final = ("invoke", "ainvoke", "run", "arun")
_FRAMEWORK: Final = frozenset({"config", "run_manager", "callbacks"})


class InvalidArguments(Exception):
    """The tool's own schema refuses these arguments."""

    def __init__(self, tool: str, why: str = "") -> None:
        super().__init__(f"{tool}: these arguments do not fit what it takes{why and ': '}{why}")


def _function_of(tool: BaseTool) -> Callable[..., Any] | None:
    return getattr(tool, "coroutine", None) or getattr(tool, "func", None)


def spec_of(tool: BaseTool) -> ToolSpec:
    """The declaration: of the decorated function inside, else of `stepgrant.declare`, else `once`."""
    function = _function_of(tool)
    found = vars(function).get("spec") if function is not None and hasattr(function, "__dict__") else None
    return found if isinstance(found, ToolSpec) else declared_as(tool.name)


def returns_command(tool: BaseTool) -> bool:
    """Whether the tool's declared result is, or may be, a `Command`."""
    function = _function_of(tool)
    if function is None:
        return False
    try:
        hint = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return False
    return _names_command(hint)


def _names_command(hint: Any) -> bool:  # noqa: ANN401  # a type hint
    origin = typing.get_origin(hint) or hint
    if isinstance(origin, type) and issubclass(origin, Command):
        return True
    if origin in (typing.Union, types.UnionType, list, typing.Annotated):
        return any(map(_names_command, typing.get_args(hint)))
    return False


def arguments_of(tool: BaseTool, args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with which the tool's body will run, as JSON.

    Raises `InvalidArguments`, and `NotJson` for a default that is not JSON.
    """
    schema = _schema_of(tool)
    if schema is None:
        return {name: _plain(value, tool.name) for name, value in args.items()}
    model = _checked(tool.name, schema, args)
    return {name: _plain(getattr(model, name), tool.name) for name in schema.model_fields}


def handed_on(tool: BaseTool, args: Mapping[str, Any], decided: Mapping[str, Any]) -> dict[str, Any]:
    """These arguments as they were decided on, for a body that cannot be watched; none that the schema drops.

    Those that the call does not name are not in it: a default need not fit its own schema.
    Raises `NotJson` for one that is not the same when it comes back from JSON (a secret's stars).
    """
    schema = _schema_of(tool)
    if schema is None:
        return dict(decided)
    model = _checked(tool.name, schema, args)
    given = {name: value for name, value in decided.items() if name in model.model_fields_set}
    try:
        again = _checked(tool.name, schema, given)
    except InvalidArguments as error:
        raise e.NotJson(what=f"a call of {tool.name}", path="", why=str(error)) from None
    for name in given:
        if getattr(again, name) != getattr(model, name):
            why = "it comes back as another value"
            raise e.NotJson(what=f"an argument of {tool.name}", path=f"/{name}", why=why)
    return given


def _schema_of(tool: BaseTool) -> type[BaseModel] | None:
    # A tool of one text has no schema of its own; what LangChain makes up for it is that of its body's plumbing.
    schema = tool.tool_call_schema if tool.args_schema is not None or not isinstance(tool, Tool) else None
    return schema if isinstance(schema, type) and issubclass(schema, BaseModel) else None


def _checked(tool: str, schema: type[BaseModel], args: Mapping[str, Any]) -> BaseModel:
    try:
        return schema.model_validate(dict(args))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(map(str, one['loc'])) or 'all'}: {one['msg']}" for one in wrong]
        raise InvalidArguments(tool, "; ".join(told)) from None


def _plain(value: object, tool: str) -> Any:  # noqa: ANN401  # any JSON value
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError):
        raise e.NotJson(what=f"an argument of {tool}", path="", why=f"a {type(value).__name__} is not JSON") from None


def _injected(tool: BaseTool) -> frozenset[str]:
    """The parameters that LangGraph gives the body, and no model: `ToolNode` drops what a model says of them."""
    by_signature = frozenset(tool._injected_args_keys)  # noqa: SLF001  # it has no public name
    whole, shown = tool.args_schema, tool.tool_call_schema
    if isinstance(whole, dict) or isinstance(shown, dict) or whole is None:
        return by_signature
    return by_signature | (get_fields(whole).keys() - get_fields(shown).keys())


class Watched:
    """A copy of a tool that notes what its body did, and runs it only with the arguments that were decided on.

    `injected`: what LangGraph gives the body besides. `entered`: the body began. `raised`: what left it.
    `conclusive`: a body that was not entered did not run.
    """

    def __init__(self, tool: BaseTool, decided: Mapping[str, Any] | None) -> None:
        self.entered = False
        self.raised: BaseException | None = None
        self.conclusive = vars(tool).keys().isdisjoint(_RUNNERS) and any(
            all(getattr(type(tool), name) is getattr(ours, name) for name in _RUNNERS) for ours in _OURS
        )
        self._decided = decided
        self.injected = _injected(tool)
        self._name = tool.name
        self.tool = tool.model_copy()
        # Instance attributes come before the class's functions; both bodies, for either may call the other.
        vars(self.tool)["_run"] = self._watch(tool._run)  # noqa: SLF001  # what `BaseTool` says to override
        vars(self.tool)["_arun"] = self._awatch(tool._arun)  # noqa: SLF001  # as above

    def _watch(self, body: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(body)
        def watched(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # those of the tool
            self._enter(args, kwargs)
            try:
                return body(*args, **kwargs)
            except BaseException as error:
                self.raised = error
                raise

        return watched

    def _awatch(self, body: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(body)
        async def watched(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # those of the tool
            self._enter(args, kwargs)
            try:
                return await body(*args, **kwargs)
            except BaseException as error:
                self.raised = error
                raise

        return watched

    def _enter(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._decided is None:
            raise InvalidArguments(self._name)
        decided = self._decided
        # A tool of one input gets it without a name.
        named = dict(zip(decided, args, strict=False)) if len(args) <= len(decided) else {"": args}
        named.update({name: value for name, value in kwargs.items() if name not in self.injected | _FRAMEWORK})
        changed = [name for name, value in named.items() if name not in decided or not self._same(value, decided[name])]
        if changed:
            self.raised = e.NotExecuted(
                f"{self._name} was given another {changed[0]!r} than was decided on; middleware that changes arguments "
                "has to stand before Stepgrant's in the list"
            )
            raise self.raised
        self.entered = True
        self.raised = None  # what stands inside of us may try again: the last time counts

    def _same(self, value: object, decided: object) -> bool:
        what = f"an argument of {self._name}"
        return encode(_plain(value, self._name), what) == encode(decided, what)


def is_error(message: object) -> bool:
    """Whether this is a message that says that the tool did not succeed."""
    return isinstance(message, ToolMessage) and message.status == "error"
