"""Each piece of the SDK's logic is written once, as a generator of effects; two drivers perform them.

A flow yields `Send` (to the broker), `Sleep` or `Invoke` (the tool) and gets the answer back. `drive` performs effects
with a blocking client, `adrive` with an asyncio client, and there is no other difference between the two faces.

Rules:
* What the tool raises comes back as `Raised`: a flow decides what to record before it goes on.
* A flow that ends with `Raised` has it raised by the driver, outside of the generator (a StopIteration stays one).
* A `must` send tells an outcome. When the caller is interrupted while it is under way, the flow learns `Interrupted`,
  tries once more for a moment, and only then does the interruption go on; else a finished effect would be in doubt.
* On GeneratorExit a coroutine cannot await any more: it passes through, nothing is sent, the resume table decides.

asyncio is named where it is awaited only: whoever awaits has loaded it, and a blocking agent starts a fifth faster
without it.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from stepgrant._client import AsyncClient, BlockingClient, Unreachable
from stepgrant._http import Answer
from stepgrant._http1 import Request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Do one exchange. Comes back as `Answer`, `Unreachable` or, if `must`, `Interrupted`."""

    request: Request
    must: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait. Comes back as None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Invoke:
    """Call something of the user's. Comes back as `Returned` or `Raised`; `adrive` awaits an awaitable."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Returned:
    """The call's value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """What the call raised, control flow included."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The caller is being stopped (Ctrl-C, a cancelled task) while an outcome was being told."""


Effect: TypeAlias = Send | Sleep | Invoke
Flow: TypeAlias = Generator[Effect, Any, T]
Exchanged: TypeAlias = Answer | Unreachable | Interrupted


def drive(flow: Flow[T], client: BlockingClient) -> T:
    """Run a flow in this thread."""
    stopped: BaseException | None = None
    came: object = None
    try:
        effect = next(flow)
        while True:
            try:
                answer = _perform(effect, client)
            except KeyboardInterrupt as error:
                if stopped is not None or not (isinstance(effect, Send) and effect.must):
                    effect = flow.throw(error)
                    continue
                stopped, answer = error, Interrupted()
            except BaseException as error:  # noqa: BLE001  # the flow has to clean up, whatever it is; it re-raises
                effect = flow.throw(error)
                continue
            effect = flow.send(answer)
    except StopIteration as end:
        came = end.value
    except Exception as error:
        if stopped is not None:
            raise stopped from error
        raise
    return cast("T", _ended(came, stopped))


def _perform(effect: Effect, client: BlockingClient) -> object:
    match effect:
        case Send(request):
            return client.send(request)
        case Sleep(seconds):
            time.sleep(seconds)
            return None
        case Invoke(call):
            try:
                return Returned(call())
            except BaseException as error:  # noqa: BLE001  # the flow decides what each kind means
                return Raised(error)


async def adrive(flow: Flow[T], client: AsyncClient) -> T:
    """Run a flow in this task."""
    import asyncio  # noqa: PLC0415 - see above

    stopped: BaseException | None = None
    came: object = None
    try:
        effect = next(flow)
        while True:
            try:
                answer = await _aperform(effect, client)
            except asyncio.CancelledError as error:
                if stopped is not None or not (isinstance(effect, Send) and effect.must):
                    effect = flow.throw(error)
                    continue
                stopped, answer = error, Interrupted()
            except BaseException as error:  # noqa: BLE001  # as above
                effect = flow.throw(error)
                continue
            effect = flow.send(answer)
    except StopIteration as end:
        came = end.value
    except Exception as error:
        if stopped is not None:
            raise stopped from error
        raise
    return cast("T", _ended(came, stopped))


async def _aperform(effect: Effect, client: AsyncClient) -> object:
    match effect:
        case Send(request):
            return await client.send(request)
        case Sleep(seconds):
            import asyncio  # noqa: PLC0415 - see above

            await asyncio.sleep(seconds)
            return None
        case Invoke(call):
            try:
                value = call()
                return Returned(await value if inspect.isawaitable(value) else value)
            except BaseException as error:  # noqa: BLE001  # as above
                return Raised(error)


def _ended(came: object, stopped: BaseException | None) -> object:
    """What the flow came to. Never called while its end is handled: a tool's own error would show that as its cause."""
    if stopped is not None:
        raise stopped
    if isinstance(came, Raised):
        raise came.error
    return came
