"""A function as its callers and a model see it: without the injected credential, with resolved type hints.

`inspect.signature`, `typing.get_type_hints` and `__annotations__` all show the same, so that no framework builds a tool
schema with the credential in it. `__wrapped__` is removed, because introspection would find the original through it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stepgrant._declaring import require_function
from stepgrant._errors import ConfigurationError
from stepgrant.credential import Credential, Inject

_SELF: Final = frozenset({"self", "cls"})


@dataclass(frozen=True, slots=True)
class Shape:
    """A tool's signature. `visible` is without the injected parameters, whose names are in `injected`."""

    whole: inspect.Signature
    visible: inspect.Signature
    injected: tuple[str, ...]
    hints: Mapping[str, Any]
    receiver: str | None

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The call with its defaults. Raises TypeError as a call would."""
        bound = self.visible.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def arguments(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        """What is recorded, decided and digested: everything but the receiver."""
        return {name: value for name, value in bound.arguments.items() if name != self.receiver}

    def invoke(self, function: Callable[..., Any], bound: inspect.BoundArguments, credential: Credential) -> Any:  # noqa: ANN401
        """Call the function with the bound arguments and the credential where it wants one."""
        given = {**bound.arguments, **dict.fromkeys(self.injected, credential)}
        whole = inspect.BoundArguments(self.whole, given)
        return function(*whole.args, **whole.kwargs)


def shape_of(function: Callable[..., Any], decorator: str = "tool") -> Shape:
    """Raises `ConfigurationError` for hints that cannot be resolved and for what cannot be a tool."""
    require_function(function, decorator)
    name = getattr(function, "__qualname__", repr(function))
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
    except NameError as error:
        raise ConfigurationError(
            f"{name}: the type hint {error.name!r} cannot be resolved; import it at run time, too"
        ) from None
    injected = tuple(parameter for parameter, hint in hints.items() if parameter != "return" and _is_injected(hint))
    plain = [parameter for parameter, hint in hints.items() if parameter != "return" and hint is Credential]
    if plain:
        raise ConfigurationError(
            f"{name}: nobody could give {plain[0]}: a credential is asked for with Annotated[Credential, Inject]"
        )
    for parameter in injected:
        if signature.parameters[parameter].kind not in (
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        ):
            raise ConfigurationError(f"{name}: the injected {parameter} must be an ordinary or keyword-only parameter")
    kept = [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.name not in injected
    ]
    visible = inspect.Signature(kept, return_annotation=hints.get("return", inspect.Signature.empty))
    shown = {parameter: hint for parameter, hint in hints.items() if parameter not in injected}
    return Shape(signature, visible, injected, shown, _receiver(function, kept))


def _is_injected(hint: Any) -> bool:  # noqa: ANN401  # a type hint
    if typing.get_origin(hint) is not typing.Annotated:
        return False
    marked = any(one is Inject or isinstance(one, Inject) for one in typing.get_args(hint)[1:])
    if marked and typing.get_args(hint)[0] is not Credential:
        raise ConfigurationError("Inject marks a Credential: Annotated[Credential, Inject]")
    return marked


def _receiver(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> str | None:
    """`self` or `cls` of a method: it is not part of the action."""
    if not parameters or parameters[0].name not in _SELF:
        return None
    inside_class = "." in getattr(function, "__qualname__", "").rpartition("<locals>.")[2]
    return parameters[0].name if inside_class else None


def dress(wrapper: Callable[..., Any], function: Callable[..., Any], shape: Shape) -> None:
    """Give the wrapper the function's name, docs and visible signature."""
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        if hasattr(function, attribute):
            setattr(wrapper, attribute, getattr(function, attribute))
    wrapper.__dict__.update({name: value for name, value in vars(function).items() if name != "__wrapped__"})
    wrapper.__annotations__ = dict(shape.hints)
    setattr(wrapper, "__signature__", shape.visible)  # noqa: B010  # a function has no such declared attribute
    vars(wrapper).pop("__wrapped__", None)
