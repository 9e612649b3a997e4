"""The policy of a rehearsal: the author's own, or one that allows what is asked; and it with a tool asked or forbidden.

Rules:
* The author's rules are never changed, only the settings that the starter policy reads (`stepgrant_config/data.json`).
  A policy without these settings stays as it is; then only what it asks by itself is rehearsed, and the report says so.
* Without a policy every tool is allowed with the effect that it claims, redeemed or not: the agent is rehearsed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SETTINGS: Final = "stepgrant_config/data.json"
OPEN_SETTINGS: Final = "rehearsal/data.json"
_ALLOW: Final = """# METADATA
# title: Rehearsal
# description: Whatever is asked is allowed with the effect that it claims, but for what the rehearsal names.
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
# description: Opening and resuming have no grant; a tool has one, unless the rehearsal forbids it.
# entrypoint: true
decision := {"effect": "deny", "reasons": ["rehearsal_forbids"]} if input.action.tool in data.rehearsal.forbid

decision := {
	"effect": "require_approval",
	"reasons": ["rehearsal_asks"],
	"grant": _grant,
	"approval": {"groups": [], "quorum": 1, "answer_within": 86400, "valid_for": 900},
} if {
	not input.action.tool in data.rehearsal.forbid
	input.action.tool in data.rehearsal.ask
}

decision := {"effect": "allow", "reasons": ["rehearsal_allows"], "grant": _grant} if {
	not input.action.tool in data.rehearsal.forbid
	not input.action.tool in data.rehearsal.ask
}

_grant := {} if startswith(input.action.tool, "stepgrant.run.")

_grant := {
	"issuer": "jwt",
	"effect": input.action.effect,
	"ttl": 60,
	"redeem": "optional",
} if not startswith(input.action.tool, "stepgrant.run.")
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy's evaluated files. `named`: where it is from, for people."""

    files: Mapping[str, str]
    named: str

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents that its settings list."""
        return tuple(self._settings.get("agents", {}))

    @property
    def can_ask(self) -> bool:
        """Whether it can be told to ask, or to forbid."""
        return OPEN_SETTINGS in self.files or bool(self.agents)

    @property
    def _settings(self) -> dict[str, Any]:
        value = json.loads(self.files.get(SETTINGS, "{}"))
        return value if isinstance(value.get("agents", {}), dict) else {}

    def asking(self, tool: str) -> dict[str, str]:
        """The files with a person asked about this tool."""
        return self._with("ask", tool)

    def forbidding(self, tool: str) -> dict[str, str]:
        """The files with this tool denied."""
        return self._with("forbid", tool)

    def _with(self, what: str, tool: str) -> dict[str, str]:
        files = dict(self.files)
        if OPEN_SETTINGS in files:
            files[OPEN_SETTINGS] = json.dumps({"ask": [], "forbid": [], what: [tool]})
            return files
        settings = self._settings
        for agent in settings.get("agents", {}).values():
            tools = agent.get("tools", {})
            if tool in tools and what == "ask":
                tools[tool]["ask"] = True
            elif tool in tools:
                del tools[tool]
        files[SETTINGS] = json.dumps(settings)
        return files


def read_policy(folder: Path | None) -> Policy:
    """The policy in this folder; None: one that allows what is asked. Raises `PolicyInvalid`."""
    if folder is None:
        return Policy(
            {"stepgrant/decision.rego": _ALLOW, OPEN_SETTINGS: '{"ask": [], "forbid": []}'}, "everything allowed"
        )
    from stepgrant_broker.policy.bundle import read_directory

    return Policy(dict(read_directory(folder).files), str(folder))
