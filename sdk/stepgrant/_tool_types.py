"""What a type checker knows of a guarded tool. Nothing here is needed when a program runs.

Rules:
* A checker sees the arguments that callers give. The credential's parameter is none of them, and no annotation can take
  a parameter out of a signature but the first. So a credential that comes first is taken out, and all else is checked;
  one that comes later leaves the arguments unchecked, rather than called wrong where they are right.
* The same for a parameter that takes anything (`Any`, `object`): for all that a checker knows, it is the credential.
* One limit is left: a credential behind a `*` looks like an argument that callers have to give. Put it before the `*`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, final, overload

from stepgrant._spec import ToolSpec
from stepgrant.credential import Credential

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


@final
class Anything:
    """What only a parameter takes that takes anything."""


class BoundTool(Protocol[P, R_co]):
    """A guarded method of an object."""

    @property
    def spec(self) -> ToolSpec:
        """Its declaration."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """One step."""
        ...


class Tool(Protocol[P, R_co]):
    """A guarded tool: called like the function, without its injected parameters."""

    __name__: str

    @property
    def spec(self) -> ToolSpec:
        """Its declaration."""
        ...

    @property
    def prepare(self) -> Callable[P, Any]:
        """Called like the tool (and awaited like it): what the call would come to now, as `Advice`. Nothing runs."""
        ...

    def with_id(self, step_id: str) -> Tool[P, R_co]:
        """The tool for one call under the id that a framework or a model gave it.

        A crash may lose such an id: a call that comes back with another one is found by its action, or asked about.
        An id that its author keeps the same is the tool's `step_id=`.
        """
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """One step: decided, recorded, done at most once."""
        ...

    @overload
    def __get__(self, instance: None, owner: type[Any], /) -> Tool[P, R_co]: ...

    @overload
    def __get__(self: Tool[Concatenate[S, Q], R], instance: S, owner: type[Any], /) -> BoundTool[Q, R]: ...


class UncheckedTool(Protocol[R_co]):
    """A guarded tool whose arguments no checker can know; all else as `Tool`."""

    __name__: str

    @property
    def spec(self) -> ToolSpec:
        """Its declaration."""
        ...

    @property
    def prepare(self) -> Callable[..., Any]:
        """As `Tool.prepare`."""
        ...

    def with_id(self, step_id: str) -> UncheckedTool[R_co]:
        """As `Tool.with_id`."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> R_co:  # noqa: ANN401  # the visible signature, which no type says
        """As `Tool.__call__`."""
        ...


Unclear: TypeAlias = (
    Callable[Concatenate[Anything, ...], R]
    | Callable[Concatenate[Any, Credential, ...], R]
    | Callable[Concatenate[Any, Any, Credential, ...], R]
    | Callable[Concatenate[Any, Any, Any, Credential, ...], R]
    | Callable[Concatenate[Any, Any, Any, Any, Credential, ...], R]
    | Callable[Concatenate[Any, Any, Any, Any, Any, Credential, ...], R]
    | Callable[Concatenate[Any, Any, Any, Any, Any, Any, Credential, ...], R]
)
"""A function that has, or may have, its credential behind other parameters."""
Credited: TypeAlias = Callable[Concatenate[Credential, P], R]
"""A function whose first parameter is its credential."""


class Decorator(Protocol):
    """What `tool(...)` with arguments gives."""

    @overload
    def __call__(self, function: Unclear[R], /) -> UncheckedTool[R]: ...

    @overload
    def __call__(self, function: Credited[P, R], /) -> Tool[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Tool[P, R]: ...
