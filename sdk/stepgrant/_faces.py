"""A function's wrapper in its own colour: `def` stays blocking, `async def` stays a coroutine function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from stepgrant._context import current_frame
from stepgrant._flows import Flow, adrive, drive
from stepgrant._frames import Frame
from stepgrant._inject import Shape, dress

FlowOf = Callable[[Frame, tuple[Any, ...], dict[str, Any]], Flow[Any]]


def face(function: Callable[..., Any], shape: Shape, name: str, flow_of: FlowOf) -> Callable[..., Any]:
    """A wrapper that looks like `function` and runs `flow_of` in the current run. It raises outside of one."""
    if inspect.iscoroutinefunction(function):

        async def acall(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # whatever the function takes and gives
            frame = current_frame(name)
            return await adrive(flow_of(frame, args, kwargs), frame.session.asyncio)

        dress(acall, function, shape)
        return acall

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as above
        frame = current_frame(name)
        return drive(flow_of(frame, args, kwargs), frame.session.blocking)

    dress(call, function, shape)
    return call
