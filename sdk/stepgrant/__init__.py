"""Stepgrant's SDK: what an agent, and a resource server that checks grants, import.

    @stepgrant.tool(effect="once")
    def charge_card(invoice_id: str, amount: int, cred: Annotated[Credential, Inject]) -> dict: ...

    with stepgrant.run("order-1729", agent="billing"):
        charge_card("inv_9", 4200)

Names are loaded when they are first used, so that importing the package, which the pytest plugin does in every test
session, costs next to nothing and hides no module from coverage.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from stepgrant import errors, http, testing, verify
    from stepgrant._agent import Agent, AsyncAgent, RunRef, agent
    from stepgrant._context import CurrentStep, current_credential, current_step
    from stepgrant._errors import (
        ApprovalRequired,
        BrokerUnavailable,
        ConfigurationError,
        Denied,
        InDoubt,
        NotExecuted,
        SecretInResult,
        StaleEpoch,
        StepFailed,
        StepgrantError,
    )
    from stepgrant._prepare import Advice
    from stepgrant._reconcile import Verdict, done, not_done, unknown
    from stepgrant._run import AsyncRun, Run, run
    from stepgrant._spec import ToolSpec
    from stepgrant._step import step
    from stepgrant._timeouts import Timeouts
    from stepgrant._tool import aguard_call, declare, guard_call, tool
    from stepgrant.credential import Credential, Inject

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "Agent",
    "ApprovalRequired",
    "AsyncAgent",
    "AsyncRun",
    "BrokerUnavailable",
    "ConfigurationError",
    "Credential",
    "CurrentStep",
    "Denied",
    "InDoubt",
    "Inject",
    "NotExecuted",
    "Run",
    "RunRef",
    "SecretInResult",
    "StaleEpoch",
    "StepFailed",
    "StepgrantError",
    "Timeouts",
    "ToolSpec",
    "Verdict",
    "__version__",
    "agent",
    "aguard_call",
    "current_credential",
    "current_step",
    "declare",
    "done",
    "errors",
    "guard_call",
    "http",
    "not_done",
    "run",
    "step",
    "testing",
    "tool",
    "unknown",
    "verify",
]

_MODULES: Final = frozenset({"errors", "http", "testing", "verify"})
_HOMES: Final = {
    "stepgrant._agent": ("Agent", "AsyncAgent", "RunRef", "agent"),
    "stepgrant._context": ("CurrentStep", "current_credential", "current_step"),
    "stepgrant._errors": (
        "ApprovalRequired",
        "BrokerUnavailable",
        "ConfigurationError",
        "Denied",
        "InDoubt",
        "NotExecuted",
        "SecretInResult",
        "StaleEpoch",
        "StepFailed",
        "StepgrantError",
    ),
    "stepgrant._prepare": ("Advice",),
    "stepgrant._reconcile": ("Verdict", "done", "not_done", "unknown"),
    "stepgrant._run": ("AsyncRun", "Run", "run"),
    "stepgrant._spec": ("ToolSpec",),
    "stepgrant._step": ("step",),
    "stepgrant._timeouts": ("Timeouts",),
    "stepgrant._tool": ("aguard_call", "declare", "guard_call", "tool"),
    "stepgrant.credential": ("Credential", "Inject"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # whatever the name is
    """Load a public name on first use (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"stepgrant.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'stepgrant' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
