"""What can be decorated, and what a declaration may say. Whatever is wrong is told when the module is imported.

Rules: the message names the function, the argument and what to write instead; a raw error of Python names none of them.
"""

from __future__ import annotations

import inspect
import re
import string
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from stepgrant._errors import ConfigurationError

_CONVERSIONS: Final = (None, "r", "s", "a")
_AGENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}")
"""The broker's names of agents."""
_FIRST_NAME: Final = re.compile(r"[^.\[]*")


def require_function(function: Any, decorator: str) -> None:  # noqa: ANN401  # whatever was decorated
    """Raises `ConfigurationError` unless it is a `def` or `async def` without `yield`. `decorator`: `tool`, ..."""
    # Never its `repr`: that of a `functools.partial` shows the arguments, which may be secret.
    name = getattr(function, "__qualname__", f"what is given (a {type(function).__name__})")
    if isinstance(function, str):
        named = f"@stepgrant.{decorator}(name={function!r})"
        raise ConfigurationError(f"{function!r} is no function; a name is given as {named}")
    if isinstance(function, (staticmethod, classmethod)):
        outer = type(function).__name__
        raise ConfigurationError(f"{name} is no function yet: put @{outer} above @stepgrant.{decorator}, not below it")
    if isinstance(function, type):
        raise ConfigurationError(f"{name} is no function but a class: decorate a function that uses it, or its methods")
    if not (inspect.isfunction(function) or (decorator == "agent" and callable(function))):
        where = f"put @stepgrant.{decorator} directly on a `def` or `async def`"
        raise ConfigurationError(f"{name} is no function; {where}, and call from there what you have")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        what = "an agent" if decorator == "agent" else "a step"
        raise ConfigurationError(f"{name} yields; {what} has one result, so return it as a whole")


def require_callable(function: object, step: str) -> None:
    """Raises `ConfigurationError` unless it can be called: a step that is called now takes whatever that is."""
    if not callable(function):
        raise ConfigurationError(f"step({step!r}, ...): {type(function).__name__} cannot be called; give a function")


def require_template(template: object, what: str) -> None:
    """Raises `ConfigurationError` for what can never give a text. `what`: `charge: step_id=`."""
    if template is None or (callable(template) and not isinstance(template, type)):
        return
    if not isinstance(template, str) or not template:
        raise ConfigurationError(
            f'{what} is a text like "charge-{{invoice}}", or a function of the arguments, not {template!r}'
        )
    try:
        fields = list(_fields(template))
    except ValueError as error:
        cure = "braces hold the name of a parameter, {{ and }} are braces"
        raise ConfigurationError(f"{what} {template!r} cannot be read ({error}); {cure}") from None
    for field, conversion in fields:
        if not field or conversion not in _CONVERSIONS:
            raise ConfigurationError(f"{what} {template!r}: braces hold the name of a parameter, such as {{invoice}}")


def require_names(template: object, what: str, parameters: Iterable[str]) -> None:
    """Raises `ConfigurationError` for a template that names no parameter of the function."""
    if not isinstance(template, str):
        return
    known = sorted(set(parameters))
    unknown = sorted({match[0] for field, _ in _fields(template) if (match := _FIRST_NAME.match(field))} - set(known))
    if unknown:
        has = ", ".join(known) or "none"
        raise ConfigurationError(f"{what} names {unknown}, which are no parameters; there is {has}")


def _fields(template: str) -> Iterator[tuple[str, str | None]]:
    """Each `{field!conversion}`, also inside of a `{field:format}`. Raises ValueError."""
    for _, field, inner, conversion in string.Formatter().parse(template):
        if field is not None:
            yield field, conversion
            yield from _fields(inner or "")


def require_hook(function: Any, tool: str) -> None:  # noqa: ANN401  # whatever was given
    """Raises `ConfigurationError` for a reconcile hook that is no function."""
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f"{tool}: reconcile= is a function that takes the step in doubt and returns stepgrant.done(...), "
            f"not_done() or unknown(), not {type(function).__name__}"
        )


def require_agent_name(name: object) -> None:
    """Raises `ConfigurationError` for what no workload can be enrolled for."""
    if not isinstance(name, str) or not _AGENT.fullmatch(name):
        shown = name if isinstance(name, str) else getattr(name, "__name__", type(name).__name__)
        raise ConfigurationError(
            f'@stepgrant.agent("billing") needs the name that the workload is enrolled for, not {shown!r}: up to 128 '
            "letters, digits and . _ / : @ - that begin with a letter or digit"
        )


def require_step_name(name: object) -> None:
    """Raises `ConfigurationError` for what is no text."""
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"stepgrant.step(name, ...): a step's name is a text, not {name!r}")


def require_seconds(value: object, what: str) -> None:
    """Raises `ConfigurationError` for what is no number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ConfigurationError(f"{what} is a number of seconds, 0 or more, not {value!r}")


def exceptions(given: Callable[..., Any] | Iterable[object], tool: str) -> tuple[type[Exception], ...]:
    """The types of `safe_exceptions=`. Raises `ConfigurationError`."""
    wrong = ConfigurationError(
        f"{tool}: safe_exceptions= are exception types in a list, like [httpx.ConnectError], not {given!r}"
    )
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise wrong
    known = tuple(one for one in given if isinstance(one, type) and issubclass(one, Exception))
    if len(known) != len(tuple(given)):
        raise wrong
    return known
