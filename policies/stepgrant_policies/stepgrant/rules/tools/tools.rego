# METADATA
# title: Which agent may use which tool, and how
# description: The allow-list. An action is allowed because its tool is listed for its agent.
# scope: package
package stepgrant.rules.tools

import data.stepgrant.settings

# METADATA
# title: The tool is listed for this agent
# description: stepgrant_config/data.json lists the tool, or the tool whose reconcile hook this is.
# custom:
#   code: tool_listed
allow contains "tool_listed" if settings.tool

# METADATA
# title: The agent is not listed
# description: stepgrant_config/data.json has no settings for an agent of this name.
# custom:
#   code: agent_not_listed
deny contains "agent_not_listed" if not settings.agent

# METADATA
# title: The tool is not listed for this agent
# description: |
#   stepgrant_config/data.json does not list this tool for this agent. A reconcile hook is listed with its tool where
#   the tool's issuer is `jwt`; with any other issuer it needs an entry of its own, `<tool>.reconcile`.
# custom:
#   code: tool_not_listed
deny contains "tool_not_listed" if {
	settings.agent
	not settings.tool
	not settings.run_action
}

# METADATA
# title: The effect is looser than the settings admit
# description: |
#   A tool may be called with the effect that the settings name or a stricter one (`read` is looser than `idempotent`,
#   that is looser than `once`).
# custom:
#   code: effect_not_allowed
deny contains "effect_not_allowed" if {
	settings.tool
	not _effect_allowed
}

_effect_allowed if input.action.effect in {"once", settings.tool.effect}

_effect_allowed if {
	input.action.effect == "idempotent"
	settings.tool.effect == "read"
}

# METADATA
# title: The resource is not listed
# description: The settings list resources for this tool, and this one is not among them.
# custom:
#   code: resource_not_listed
deny contains "resource_not_listed" if {
	settings.tool
	not _resource_listed
}

_resource_listed if not settings.tool.resources

_resource_listed if settings.tool.resources[input.action.resource]
