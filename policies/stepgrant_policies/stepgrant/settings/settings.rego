# METADATA
# title: What the settings say
# description: |
#   Reads stepgrant_config/data.json for the agent and the action of the input. What the settings do not list is
#   undefined here, so that whoever asks through `not` refuses it.
# scope: package
package stepgrant.settings

# METADATA
# title: The agent's settings
# description: Undefined for an agent that is not listed.
agent := data.stepgrant_config.agents[input.agent.name]

# METADATA
# title: The tool's settings
# description: |
#   As listed for the agent. The reconcile hook of a listed tool may look at the same target with the same issuer;
#   it is a read, so nothing that is said of amounts, meters, labels or questions is taken over.
tool := listed if {
	listed := agent.tools[input.action.tool]
} else := hook if {
	input.action.effect == "read"

	# What is no text is undefined for trim_suffix in one engine, an error in another.
	is_string(input.action.tool)
	listed := agent.tools[trim_suffix(input.action.tool, ".reconcile")]
	target := object.filter(listed, ["issuer", "params", "audience", "resources", "labels"])
	hook := object.union({"effect": "read"}, target)
}

# METADATA
# title: Opening, resuming or taking over
# description: True for the three actions that concern the run itself and have rules of their own.
run_action if input.action.tool in {"stepgrant.run.open", "stepgrant.run.resume", "stepgrant.run.takeover"}
