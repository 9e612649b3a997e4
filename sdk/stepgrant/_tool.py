"""Declaring tools: the decorator, and declarations of tools that are not ours to decorate.

Rules:
* Every way to call a guarded tool goes through `_guard.guarded`; here are only declarations and their two faces.
* A tool nobody declared is `once`, with a person in doubt.
* The decorated function shows callers and frameworks the same signature, without the injected credential.
* Under a framework's adapter the decorator only declares: the adapter guards the call, and the function runs inside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast, overload

from stepgrant._adapter import taken_over
from stepgrant._context import CurrentStep, current_frame
from stepgrant._declaring import exceptions, require_hook
from stepgrant._errors import ConfigurationError
from stepgrant._faces import face
from stepgrant._flows import Flow, adrive, drive
from stepgrant._frames import Frame
from stepgrant._guard import guarded
from stepgrant._inject import Shape, shape_of
from stepgrant._prepare import prepared
from stepgrant._results import why_not_json
from stepgrant._spec import Hook, Template, ToolSpec, Work, require_id
from stepgrant.credential import Credential

if TYPE_CHECKING:
    from stepgrant._tool_types import Credited, Decorator, Tool, UncheckedTool, Unclear

P = ParamSpec("P")
R = TypeVar("R")
Effect = Literal["read", "idempotent", "once"]
ReconcileHook = Callable[..., Any]
"""Takes the step in doubt (`CurrentStep`), and the credential where it asks for one; returns a verdict."""


@overload
def tool(function: Unclear[R], /) -> UncheckedTool[R]: ...


@overload
def tool(function: Credited[P, R], /) -> Tool[P, R]: ...


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    effect: Effect = ...,
    reconcile: ReconcileHook | None = ...,
    idempotency_key: Template | None = ...,
    step_id: Template | None = ...,
    resource: Template | None = ...,
    settle: float = ...,
    safe_exceptions: Sequence[type[Exception]] = ...,
    name: str | None = ...,
    retry_failed: bool = ...,
    certificate: bool = ...,
) -> Decorator: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    effect: Effect = "once",
    reconcile: ReconcileHook | None = None,
    idempotency_key: Template | None = None,
    step_id: Template | None = None,
    resource: Template | None = None,
    settle: float = 0,
    safe_exceptions: Sequence[type[Exception]] = (),
    name: str | None = None,
    retry_failed: bool = False,
    certificate: bool = False,
) -> Any:
    """Guard a function, `def` or `async def`: each call is a step, decided and recorded before the function runs.

    Args:
        function: when used without parentheses.
        effect: `read`, `idempotent` (again with the same idempotency key changes nothing) or `once`.
        reconcile: for `once`: asks the target whether a step in doubt happened.
        idempotency_key: the key that the target knows; by default one of run and step.
        step_id: the step's key, like `"charge-{invoice_id}"`; by default the order of calls, if they are in one.
        resource: what is acted on, as `step_id`; a resource server compares it.
        settle: seconds until a look at the target tells the truth.
        safe_exceptions: types that mean for sure that nothing happened, like `NotExecuted`.
        name: by default the function's.
        retry_failed: a recorded failure is tried again instead of raised again.
        certificate: the credential is a client certificate over a key made for each attempt (`Credential.ssl_context`).

    Raises `ConfigurationError`: it contradicts itself, or the return type can never be JSON.
    """

    def declare_function(target: Callable[..., Any]) -> Callable[..., Any]:
        shape, called = shape_of(target), target.__name__ if name is None else name
        spec = ToolSpec(
            name=called,
            effect=effect,
            reconcile=_hook(reconcile, called, allow_async=inspect.iscoroutinefunction(target)),
            idempotency_key=idempotency_key,
            step_id=step_id,
            resource=resource,
            settle=settle,
            safe_exceptions=exceptions(safe_exceptions, called),
            retry_failed=retry_failed,
            certificate=certificate,
        )
        return _wrapped(target, shape, spec)

    return declare_function if function is None else declare_function(function)


def _wrapped(function: Callable[..., Any], shape: Shape, spec: ToolSpec) -> Callable[..., Any]:
    if isinstance(vars(function).get("spec"), ToolSpec):
        raise ConfigurationError(f"{spec.name} is a guarded tool already; each call would be a step inside a step")
    spec.require_parameters(set(shape.visible.parameters) - {shape.receiver})
    why = why_not_json(shape.hints.get("return"))
    if why is not None:
        raise ConfigurationError(f"{spec.name} cannot be recorded: its declared result is not JSON: {why}")

    def work_of(args: tuple[Any, ...], kwargs: dict[str, Any], call_id: str | None) -> Work:
        bound = shape.bind(args, kwargs)
        given = shape.arguments(bound)
        return Work(
            spec, given, lambda credential: shape.invoke(function, bound, credential), step_id=call_id, given="call_id"
        )

    def under(step_id: str | None) -> Callable[..., Any]:
        def act(frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flow[Any]:
            work = work_of(args, kwargs, step_id)
            return taken_over(work) or guarded(frame, work)

        def ask(frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Flow[Any]:
            return prepared(frame, work_of(args, kwargs, step_id))

        def with_id(other: str) -> Callable[..., Any]:
            return under(require_id(other, spec.name))

        wrapper = face(function, shape, spec.name, act)
        vars(wrapper).update({"spec": spec, "with_id": with_id, "prepare": face(function, shape, spec.name, ask)})
        return wrapper

    return under(None)


def _hook(function: ReconcileHook | None, tool: str, *, allow_async: bool) -> Hook | None:
    if function is None:
        return None
    require_hook(function, tool)
    shape = shape_of(function)
    if len(shape.visible.parameters) != 1:
        raise ConfigurationError(f"{function.__name__}: a reconcile hook takes the step, and a Credential to inject")
    is_async = inspect.iscoroutinefunction(function)
    if is_async and not allow_async:
        raise ConfigurationError(f"{function.__name__} is `async def`, but its tool is not, so nobody could await it")

    def call(step: CurrentStep, credential: Credential) -> Any:  # noqa: ANN401  # a verdict, or an awaitable of one
        return shape.invoke(function, shape.bind((step,), {}), credential)

    return Hook(call, is_async)


# ------------------------------------------------------------------------------------------------ tools of others


_declared: Final[dict[str, ToolSpec]] = {}


def declare(
    name: str,
    *,
    effect: Effect = "once",
    reconcile: ReconcileHook | None = None,
    idempotency_key: Template | None = None,
    step_id: Template | None = None,
    resource: Template | None = None,
    settle: float = 0,
    safe_exceptions: Sequence[type[Exception]] = (),
    retry_failed: bool = False,
    certificate: bool = False,
) -> ToolSpec:
    """Say what a tool of somebody else does, for `guard_call` and `aguard_call`. The arguments are those of `tool`.

    Raises `ConfigurationError`, also for another declaration of the same name.
    """
    spec = ToolSpec(
        name=name,
        effect=effect,
        reconcile=_hook(reconcile, name, allow_async=True),
        idempotency_key=idempotency_key,
        step_id=step_id,
        resource=resource,
        settle=settle,
        safe_exceptions=exceptions(safe_exceptions, name),
        retry_failed=retry_failed,
        certificate=certificate,
    )
    known = _declared.get(name)
    if known is not None and _plain(known) != _plain(spec):
        raise ConfigurationError(f"{name} was declared before, with another meaning")
    return _declared.setdefault(name, spec)


def _plain(spec: ToolSpec) -> tuple[object, ...]:
    return (
        spec.effect,
        spec.idempotency_key,
        spec.step_id,
        spec.resource,
        spec.settle,
        spec.safe_exceptions,
        spec.certificate,
    )


def declared_as(name: str) -> ToolSpec:
    """What was declared under this name; a tool nobody declared is `once`. Raises `ConfigurationError` for the name."""
    return _declared.get(name) or ToolSpec(name)


def guard_call(
    name: str,
    args: Mapping[str, Any],
    function: Callable[..., R],
    *,
    step_id: str | None = None,
    call_id: str | None = None,
) -> R:
    """Call `function(**args)` as one step of tool `name`; the credential is `current_credential()` inside.

    `step_id` stays the same after a crash; `call_id` comes from a framework or a model and may not (`Tool.with_id`).
    Raises as a decorated tool does.
    """
    spec = declared_as(name)
    if inspect.iscoroutinefunction(function) or (spec.reconcile is not None and spec.reconcile.is_async):
        raise ConfigurationError(f"{name} or its reconcile hook is `async def`: use aguard_call")
    frame = current_frame(name)
    work = _work_of(spec, args, function, step_id, call_id)
    return cast("R", drive(guarded(frame, work), frame.session.blocking))


async def aguard_call(
    name: str,
    args: Mapping[str, Any],
    function: Callable[..., Awaitable[R]],
    *,
    step_id: str | None = None,
    call_id: str | None = None,
) -> R:
    """As `guard_call`, for a function that gives an awaitable."""
    frame = current_frame(name)
    spec = declared_as(name)
    work = _work_of(spec, args, function, step_id, call_id)
    return cast("R", await adrive(guarded(frame, work), frame.session.asyncio))


def _work_of(
    spec: ToolSpec, args: Mapping[str, Any], function: Callable[..., Any], step_id: str | None, call_id: str | None
) -> Work:
    if step_id is not None and call_id is not None:
        raise ConfigurationError(f"{spec.name}: a call has a step_id or a call_id, not both")
    given = call_id if step_id is None else step_id
    return Work(
        spec,
        dict(args),
        lambda _: function(**args),
        step_id=None if given is None else require_id(given, spec.name),
        given="explicit" if call_id is None else "call_id",
    )
