"""Recorded steps: what a model said, a plan, a clock reading. Done once, stored, and given back to a resumed agent.

Rules:
* No credential and no policy: a recorded step has a result, not an effect. What acts is a `tool`.
* What raises is not recorded: a resumed agent tries it again.
* Another name or other arguments under a recorded key are `StepDrift`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from stepgrant import _calls, _outcomes
from stepgrant import _errors as e
from stepgrant._border import hold
from stepgrant._context import current_frame, inside
from stepgrant._declaring import require_callable, require_names, require_step_name, require_template
from stepgrant._faces import face
from stepgrant._flows import Flow, Invoke, Raised, Returned, adrive, drive
from stepgrant._frames import Frame, Place
from stepgrant._inject import shape_of
from stepgrant._refused import named
from stepgrant._results import as_recorded, encode, why_not_json
from stepgrant._secrets import LIVE
from stepgrant._spec import Template, fill

P = ParamSpec("P")
R = TypeVar("R")


class Decorator(Protocol):
    """What `step(...)` without a function gives."""

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        """Record each call of this function."""
        ...


@dataclass(frozen=True, slots=True)
class _Recording:
    name: str
    args: Mapping[str, Any] = field(repr=False)
    run: Callable[[], Any] = field(repr=False)
    step_id: str | None = None


@overload
def step(name: str, function: Callable[[], R], /, *, step_id: str | None = ...) -> R: ...


@overload
def step(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def step(name: str | None = ..., *, step_id: Template | None = ...) -> Decorator: ...


def step(
    name: str | Callable[..., Any] | None = None,
    function: Callable[[], Any] | None = None,
    *,
    step_id: Template | None = None,
) -> Any:
    """Record what a function returns; once recorded, give that back instead of calling it.

    Three ways: `step("plan", make_plan)` calls now (and gives an awaitable for an `async def`); `@step` and
    `@step("plan", step_id="plan-{topic}")` make every call of the function such a step.

    Raises:
        NotJson: an argument or the result is not JSON; nothing is recorded.
        SecretInResult: the result holds a live secret; that is recorded, the result is not.
        StepDrift, OrdinalUnderConcurrency, StaleEpoch, BrokerUnavailable, ConfigurationError.
    """
    if callable(name):
        return _decorated(name, None, step_id)
    if name is not None:
        require_step_name(name)
    if function is None:
        return functools.partial(_decorated, name=name, step_id=step_id)
    if name is None:
        raise e.ConfigurationError("step(name, function): a step that is called now needs a name")
    require_callable(function, name)
    require_template(step_id, f"{name}: step_id=")
    require_names(step_id, f"{name}: step_id=", ())
    recording = _Recording(name, {}, function, fill(step_id, f"{name}: step_id", {}))
    frame = current_frame(name)
    if inspect.iscoroutinefunction(function):
        return adrive(_recorded(frame, recording), frame.session.asyncio)
    return drive(_recorded(frame, recording), frame.session.blocking)


def _decorated(function: Callable[..., Any], name: str | None, step_id: Template | None) -> Callable[..., Any]:
    shape = shape_of(function, "step")
    if shape.injected:
        raise e.ConfigurationError(f"{function.__name__}: a recorded step has no credential; what acts is a tool")
    why = why_not_json(shape.hints.get("return"))
    if why is not None:
        raise e.ConfigurationError(f"{function.__name__} cannot be recorded: its declared result is not JSON: {why}")
    called = name or function.__name__
    require_template(step_id, f"{called}: step_id=")
    require_names(step_id, f"{called}: step_id=", set(shape.visible.parameters) - {shape.receiver})

    def recording_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Recording:
        bound = shape.bind(args, kwargs)
        given = shape.arguments(bound)
        run = functools.partial(function, *bound.args, **bound.kwargs)
        return _Recording(called, given, run, fill(step_id, f"{called}: step_id", given))

    return face(function, shape, called, lambda frame, args, kwargs: _recorded(frame, recording_of(args, kwargs)))


def _recorded(frame: Frame, recording: _Recording) -> Flow[Any]:
    if frame.session.stopping:
        yield from hold(frame)
    try:
        with frame.call(recording.name, recording.step_id) as place:
            result = yield from named(
                _once(frame, place, recording), frame.session, place.key, recording.name, ran=True
            )
    except Exception as error:
        frame.note_raised(error)
        raise
    if isinstance(result, Raised):
        frame.note_raised(result.error)
    return result


def _once(frame: Frame, place: Place, recording: _Recording) -> Flow[Any]:
    session, name = frame.session, recording.name
    at = functools.partial(
        _calls.record,
        session.run_id,
        place.key,
        session.epoch,
        name=name,
        args=encode(recording.args, f"the arguments of {name}"),
        source=place.source,
    )
    session.require_held()
    if session.opened.resumed or place.key in session.recorded:
        known = yield from _known(frame, place, at(result=None, withheld=False))
        if known is not None:
            return _given_back(place, known)
    with inside(Frame(session, place.key), None):
        came: Returned | Raised = yield Invoke(recording.run)
    if isinstance(came, Raised):
        return came
    data = encode(came.value, f"the result of {name}")
    withheld = LIVE.found_in(data)
    outcome = yield from session.call(at(result=None if withheld else data, withheld=withheld), _outcomes.RecordOutcome)
    session.recorded.add(place.key)
    if isinstance(outcome, _outcomes.Replay):
        return _given_back(place, outcome)
    place.settled = True
    if withheld:
        raise e.SecretInResult(step=place.key)
    return as_recorded(came.value, data)


def _known(frame: Frame, place: Place, asking: _calls.Call) -> Flow[_outcomes.Replay | None]:
    """The recorded outcome, after the broker compared name and arguments; None if there is none."""
    session = frame.session
    try:
        yield from session.call(_calls.show_step(session.run_id, place.key), _outcomes.ShownStep)
    except e.BrokerError as error:
        if error.code == "unknown_step":
            return None
        raise
    outcome = yield from session.call(asking, _outcomes.RecordOutcome)
    return outcome if isinstance(outcome, _outcomes.Replay) else None


def _given_back(place: Place, outcome: _outcomes.Replay) -> Any:  # noqa: ANN401  # any JSON value
    place.settled = True
    if outcome.withheld:
        raise e.ResultWithheld(step=outcome.step)
    return outcome.result
