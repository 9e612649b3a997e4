"""What is declared of a tool, and one guarded call of it, as plain values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stepgrant import _wire
from stepgrant._calls import Action
from stepgrant._context import CurrentStep
from stepgrant._declaring import require_names, require_seconds, require_template
from stepgrant._errors import ConfigurationError
from stepgrant._frames import GivenId
from stepgrant._results import encode
from stepgrant.credential import Credential

if TYPE_CHECKING:
    from stepgrant._own_key import OwnKey

Template: TypeAlias = str | Callable[[Mapping[str, Any]], str]
"""A text with `{parameter}` in it, or a function of the bound arguments."""

_TEMPLATES: Final = ("idempotency_key", "step_id", "resource")
EFFECTS: Final = ("read", "idempotent", "once")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,116}")
"""The broker's names, with room for `.reconcile`."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A reconcile hook: how to call it with the step that is in doubt, and whether that gives an awaitable."""

    call: Callable[[CurrentStep, Credential], Any]
    is_async: bool


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool's declaration, checked. `settle` is in seconds."""

    name: str
    effect: _wire.Effect = "once"
    reconcile: Hook | None = None
    idempotency_key: Template | None = None
    step_id: Template | None = None
    resource: Template | None = None
    settle: float = 0
    safe_exceptions: tuple[type[Exception], ...] = ()
    retry_failed: bool = False
    certificate: bool = False

    def __post_init__(self) -> None:
        """Raises `ConfigurationError`."""
        called: object = self.name  # whatever was given
        if not isinstance(called, str) or not _NAME.fullmatch(called):
            raise ConfigurationError(
                f"tool name {self.name!r} is not up to 117 letters, digits and . _ / : @ - that begin with a letter or "
                "digit; give the tool a name="
            )
        if self.effect not in EFFECTS:
            raise ConfigurationError(f"{self.name}: effect is one of {', '.join(EFFECTS)}, not {self.effect!r}")
        require_seconds(self.settle, f"{self.name}: settle=")
        for what in _TEMPLATES:
            require_template(getattr(self, what), f"{self.name}: {what}=")
        for what in ("retry_failed", "certificate"):
            if not isinstance(getattr(self, what), bool):
                raise ConfigurationError(f"{self.name}: {what}= is True or False")
        if self.reconcile is not None and self.effect != "once":
            raise ConfigurationError(
                f"{self.name}: only a `once` tool can be in doubt, so only it has a reconcile hook"
            )

    def require_parameters(self, names: Collection[str]) -> None:
        """Raises `ConfigurationError` for a template that names no parameter of the tool."""
        for what in _TEMPLATES:
            require_names(getattr(self, what), f"{self.name}: {what}=", names)


def fill(template: Template | None, what: str, args: Mapping[str, Any]) -> str | None:
    """The template with the call's arguments. Raises `ConfigurationError` if that gives no text."""
    if template is None:
        return None
    try:
        text: object = template.format_map(args) if isinstance(template, str) else template(args)
    except (LookupError, AttributeError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{what} cannot be made from the arguments ({type(error).__name__})") from error
    if not isinstance(text, str) or not text:
        raise ConfigurationError(f"{what} must be a text that is not empty")
    return text


def require_id(step_id: object, name: str) -> str:
    """A step id that a caller gave. Raises `ConfigurationError`."""
    if not isinstance(step_id, str) or not step_id:
        raise ConfigurationError(f"{name}: a step id is a text that is not empty")
    return step_id


def _same(value: Any) -> Any:  # noqa: ANN401  # any result
    return value


def _never(_: BaseException) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Work:
    """One guarded call. `args` are the bound arguments; `run` calls the tool; `outgoing` makes its value JSON.

    `given` says what a `step_id` that came with the call is; a declared one is always `explicit`. `incoming` makes what
    the caller gets of a recorded result, also the first time. `passes`: with this exception a framework leaves a tool
    and comes back. `settles`: when the tool raises and its step is in doubt by that, the hook looks at once, and where
    nobody can tell `InDoubt` is raised, not what the tool raised.
    """

    spec: ToolSpec
    args: Mapping[str, Any] = field(repr=False)
    run: Callable[[Credential], Any] = field(repr=False)
    step_id: str | None = None
    outgoing: Callable[[Any], Any] = _same
    given: GivenId = "explicit"
    incoming: Callable[[Any], Any] = _same
    passes: Callable[[BaseException], bool] = _never
    settles: bool = False

    def named_id(self) -> str | None:
        """The given step id, else the declared one, else None: the order of calls."""
        return self.step_id or fill(self.spec.step_id, f"{self.spec.name}: step_id", self.args)

    @property
    def source(self) -> GivenId:
        """What `named_id` is."""
        return self.given if self.step_id else "explicit"

    def resource(self) -> str | None:
        """What is acted on, where the tool says so."""
        return fill(self.spec.resource, f"{self.spec.name}: resource", self.args)

    def own_key(self) -> OwnKey | None:
        """A new key for a certificate, where the tool wants one."""
        if not self.spec.certificate:
            return None
        from stepgrant._own_key import OwnKey  # noqa: PLC0415 - X.509: 0.02 s of a start, which few agents need

        return OwnKey()

    def action(self) -> Action:
        """What the broker decides on. Raises `NotJson`, `ConfigurationError`."""
        spec = self.spec
        return Action(
            tool=spec.name,
            args=encode(self.args, f"the arguments of {spec.name}"),
            effect=spec.effect,
            resource=self.resource(),
            idempotency_key=fill(spec.idempotency_key, f"{spec.name}: idempotency_key", self.args),
            settle_s=spec.settle,
            retry_failed=spec.retry_failed,
        )
