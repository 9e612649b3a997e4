"""Both faces of the SDK behind one: a test is written once, as a coroutine, and runs against each.

The blocking face blocks the test's event loop, which nobody else needs: servers of tests have threads of their own.
"""

# ruff: noqa: ANN401 - a test hands on whatever the code under test takes and gives

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import stepgrant


class Blocking:
    """`with`, `def`."""

    name = "blocking"

    @asynccontextmanager
    async def run(self, key: str | None = "job", *, agent: str = "agent", **options: Any) -> AsyncIterator[Any]:
        """A run."""
        with stepgrant.run(key, agent=agent, **options) as held:
            yield held

    def tool(self, function: Callable[..., Any], **declared: Any) -> Any:
        """A guarded tool."""
        return stepgrant.tool(**declared)(function)

    async def call(self, tool: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a tool, or a method of a held run."""
        return tool(*args, **kwargs)

    async def step(self, name: str, function: Callable[[], Any], **more: Any) -> Any:
        """A recorded step."""
        return stepgrant.step(name, function, **more)


class Asynchronous:
    """`async with`, `async def`."""

    name = "asyncio"

    @asynccontextmanager
    async def run(self, key: str | None = "job", *, agent: str = "agent", **options: Any) -> AsyncIterator[Any]:
        """A run."""
        async with stepgrant.run(key, agent=agent, **options) as held:
            yield held

    def tool(self, function: Callable[..., Any], **declared: Any) -> Any:
        """A guarded tool."""
        return stepgrant.tool(**declared)(coroutine_function(function))

    async def call(self, tool: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a tool, or a method of a held run."""
        return await tool(*args, **kwargs)

    async def step(self, name: str, function: Callable[[], Any], **more: Any) -> Any:
        """A recorded step."""
        return await stepgrant.step(name, coroutine_function(function), **more)


Face = Blocking | Asynchronous
faces = pytest.mark.parametrize("face", [Blocking(), Asynchronous()], ids=lambda face: face.name)


IMPATIENT = stepgrant.Timeouts(broker=0.3)
"""For what a broker never answers. Not for the rest: a busy machine may take that long over one good answer."""


def impatient(held: Any) -> None:
    """What this run asks from now on is given up soon; so far it had all the patience there is."""
    held._session._caller.timeouts = IMPATIENT


class LoopError(Exception):
    """Stands for what a framework leaves a tool, or its loop, with."""


class Target:
    """A tool's world: how often it was reached, and what it does."""

    def __init__(self, value: Any = "ok") -> None:
        self.reached = 0
        self.value = value

    def act(self) -> Any:
        """Return the value, or raise it."""
        self.reached += 1
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


async def call_impatiently(face: Face, tool: Callable[..., Any], at: dict[str, Any], *args: Any) -> Any:
    """One call of this tool in a run of its own, whose begin is given up soon."""
    async with face.run(**at) as held:
        impatient(held)
        return await face.call(tool, *args)


async def call_once(
    face: Face, target: Target, at: dict[str, Any], *, impatient_for: str | None = None, **declared: Any
) -> Any:
    """One call of the tool `charge` in a run of its own. `impatient_for`: its "begin", or its "outcome"."""
    options = {"passthrough": (LoopError,), **at}

    def charge() -> Any:
        if impatient_for == "outcome":
            impatient(held)
        return target.act()

    tool = face.tool(charge, **{"name": "charge", **declared})
    async with face.run(**options) as held:
        if impatient_for == "begin":
            impatient(held)
        return await face.call(tool)


def coroutine_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function as `async def`, with the same signature."""

    @functools.wraps(function)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return coroutine
