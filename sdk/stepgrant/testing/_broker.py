"""The broker that a test talks to: started for it, allowed what it says, gone with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from stepgrant import _clock
from stepgrant._errors import ConfigurationError
from stepgrant._run import Opening, run
from stepgrant.receipt import Event
from stepgrant.testing._advice import advise, listed
from stepgrant.testing._host import GROUP, Start

Tools = Mapping[str, str | Mapping[str, object]]
"""Tool name to effect, or to the tool's settings in the starter policy (`effect`, `ask`, `ttl`, `audience`, ...)."""

_ALLOW_ALL: Final = """# METADATA
# title: Tests
# description: Whatever is asked is allowed, with the effect that it claims.
# scope: package
package stepgrant

# METADATA
# title: Nothing else
# description: What has no tool is denied.
# custom:
#   code: no_rule_matched
default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

# METADATA
# title: Everything
# description: Opening and resuming have no grant; a tool has one of a minute.
# entrypoint: true
decision := {"effect": "allow", "reasons": ["test_allows_everything"], "grant": _grant}

_grant := {} if startswith(input.action.tool, "stepgrant.run.")

_grant := object.union(
	{"issuer": "jwt", "effect": input.action.effect, "ttl": 60},
	data.test_grant,
) if not startswith(input.action.tool, "stepgrant.run.")
"""
_SETTINGS: Final[Mapping[str, object]] = {
    "approval": {"groups": [], "quorum": 1, "answer_within": 86_400, "valid_for": 900},
    "flows": {},
    "resume": {"ask_after_parked_seconds": 86_400},
    "ttl": {"read": 60, "idempotent": 60, "once": 60},
}


@cache  # each look goes through all that is installed
def find_start() -> Start:
    """What the first entry point of the group gives. Raises `ConfigurationError` without a broker."""
    for point in entry_points(group=GROUP):
        try:
            start: Start = point.load()
        except ImportError as error:
            raise ConfigurationError(
                f"the broker cannot be imported ({error.name}); install stepgrant[broker,embedded] for tests"
            ) from error
        return start
    raise ConfigurationError("no broker is installed; install stepgrant[broker,embedded] for tests")


class TestBroker:
    """A real broker for one test. Everything that the test did not allow is denied, as in production.

    Args:
        folder: an empty one; everything lies there.
        lease_s: how long a silent holder keeps its run.
        set_env: called with name and value of what `stepgrant.run` reads from the environment.
        options: more settings of the broker, by their names.
    """

    __test__ = False

    def __init__(
        self,
        folder: Path,
        *,
        lease_s: float = 30,
        set_env: Callable[[str, str], None] | None = None,
        **options: Any,  # noqa: ANN401  # the broker's own
    ) -> None:
        self._set_env = set_env
        self._keys: dict[str, Path] = {}
        self._agents: dict[str, dict[str, Any]] = {}
        self._keyed: str | None = None
        self.host: Final = find_start()(folder, settings={**_SETTINGS, "agents": {}}, lease_s=lease_s, **options)
        self._env("STEPGRANT_URL", self.host.url)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.host.url

    def allow(self, agent: str, tools: Tools, **settings: object) -> None:
        """Allow this agent these tools and nothing else, under the starter policy.

        Args:
            agent: its name; a workload key for it is enrolled once, and `STEPGRANT_WORKLOAD_KEY` names it.
            tools: each with its effect, or with settings of `stepgrant_config/data.json`.
            settings: more of the agent's settings, such as `budgets`.
        """
        self._agents[agent] = {"tools": listed(agent, tools), **settings}
        self.host.set_settings({**_SETTINGS, "agents": self._agents})
        self.key_of(agent)

    def allow_everything(self, *, audience: str | None = None) -> None:
        """Allow every agent every tool, with the effect it claims; `audience` is where their credentials may go."""
        grant = {} if audience is None else {"audience": audience}
        self.host.set_policy({"stepgrant/decision.rego": _ALLOW_ALL, "test_grant/data.json": json.dumps(grant)})

    def key_of(self, agent: str) -> Path:
        """The key file of this agent's workload."""
        if agent not in self._keys:
            self._keys[agent] = self.host.enroll(agent, agents=[agent])
        self._env("STEPGRANT_WORKLOAD_KEY", str(self._keys[agent]))
        self._keyed = agent
        return self._keys[agent]

    def explain(self, error: BaseException) -> None:
        """Note on what a test fails with what it did not allow, where that is why. The pytest plugin calls it."""
        advise(error, {agent: known["tools"] for agent, known in self._agents.items()}, self._keyed)

    def run(self, key: str, *, agent: str, **options: Any) -> Opening:  # noqa: ANN401  # those of `stepgrant.run`
        """`stepgrant.run` against this broker, as this agent's workload."""
        return run(key, agent=agent, url=self.url, workload_key=self.key_of(agent), **options)

    def approve(self, approval_id: str | None, *, note: str = "") -> None:
        """A person says yes. `approval_id` is the one of `ApprovalRequired`."""
        self.host.approve(_given(approval_id), note=note)

    def deny(self, approval_id: str | None, *, note: str = "") -> None:
        """A person says no."""
        self.host.deny(_given(approval_id), note=note)

    def secret(self, name: str, value: str, *, hosts: Sequence[str], header: str = "Authorization") -> None:
        """Store a secret that a tool with `issuer: static` and `params: {secret: name}` is given."""
        self.host.set_secret(name, value, hosts=hosts, header=header)

    def advance(self, seconds: float) -> None:
        """Let time pass for the broker and for this process's proofs; resource servers keep the system's time."""
        self.host.advance(seconds)
        _clock.ahead_s += seconds

    def entries(self, run_id: str) -> Sequence[Event]:
        """What the ledger holds of a run."""
        return self.host.entries(run_id)

    def receipt(self, run_id: str) -> dict[str, Any]:
        """A receipt of a run."""
        return self.host.receipt(run_id)

    def close(self) -> None:
        """Stop it."""
        _clock.ahead_s = 0.0
        self.host.close()

    def _env(self, name: str, value: str) -> None:
        if self._set_env is not None:
            self._set_env(name, value)


def _given(approval_id: str | None) -> str:
    if approval_id is None:
        raise ConfigurationError("there is no approval to answer")
    return approval_id
