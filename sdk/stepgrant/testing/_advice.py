"""What a test forgot to allow, said where it failed. Policy's answer is the one of production, which knows no tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from stepgrant import _errors as e

_CHAIN: Final = 20
_NOT_LISTED: Final = frozenset({"agent_not_listed", "tool_not_listed", "no_rule_matched"})
Allowed = Mapping[str, Mapping[str, Mapping[str, object]]]
"""Agent to tool to its settings."""


def advise(error: BaseException, allowed: Allowed, keyed: str | None) -> None:
    """Add a note to what a test fails with, where it fails because of what its broker was not told.

    Args:
        error: what left the test.
        allowed: what `allow` was told.
        keyed: the agent whose key `STEPGRANT_WORKLOAD_KEY` names; None without one.
    """
    for one in _chain(error):
        said = _advice(one, allowed, keyed)
        if said is not None:
            error.add_note(f"stepgrant_broker: {said}")
            return


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    for _ in range(_CHAIN):
        if one is None:
            return
        yield one
        one = one.__cause__ or one.__context__


def _advice(error: BaseException, allowed: Allowed, keyed: str | None) -> str | None:
    match error:
        case e.ConfigurationError() if keyed is None and "STEPGRANT_WORKLOAD_KEY" in str(error):
            return f"no agent was allowed anything yet: begin the test with {_allow('billing', 'charge')}"
        case e.Denied() if error.tool is not None and _NOT_LISTED.intersection(error.reasons):
            return f"this test did not allow that: {_allow(keyed or 'billing', error.tool)}. {_listed(allowed)}"
        case e.Denied() if _NOT_LISTED.intersection(error.reasons):
            return f"this test did not allow this agent: {_allow(keyed or 'billing', 'charge')}. {_listed(allowed)}"
        case e.BrokerError(code="forbidden") if keyed is not None:
            return (
                f"STEPGRANT_WORKLOAD_KEY is the key of {keyed!r}, the agent that was allowed last; for another one "
                f"call stepgrant_broker.key_of(agent) first, or use stepgrant_broker.run(key, agent=...). "
                f"{_listed(allowed)}"
            )
        case _:
            return None


def _allow(agent: str, tool: str) -> str:
    return f'stepgrant_broker.allow("{agent}", {{"{tool}": "once"}}) (or "idempotent", or "read")'


def _listed(allowed: Allowed) -> str:
    said = []
    for agent, tools in allowed.items():
        named = [f"{tool} ({known.get('effect')})" for tool, known in tools.items()]
        said.append(f"{agent}: {', '.join(named) or 'no tool'}")
    return f"Allowed is: {'; '.join(said) or 'nothing'}"


def listed(agent: str, tools: Any) -> dict[str, dict[str, object]]:  # noqa: ANN401  # what a test gave
    """The tools that `allow` was given, each with its settings. Raises `ConfigurationError`."""
    if not isinstance(tools, Mapping):
        raise e.ConfigurationError(
            f'allow({agent!r}, ...) takes each tool with its effect, like {{"charge": "once"}}, not {tools!r}'
        )
    return {name: {"effect": said} if isinstance(said, str) else dict(said) for name, said in tools.items()}
