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
#   As listed for the agent. The reconcile hook of a listed tool whose issuer is `jwt` may look at the same target: it
#   is a read, so nothing that is said of amounts, meters or questions is taken over, and its token names the hook as
#   its action, so that it opens nothing else. Another issuer would hand out the very secret that the tool acts with;
#   such a hook needs an entry of its own, best with a secret that can only look.
tool := listed if {
	listed := agent.tools[input.action.tool]
} else := hook if {
	input.action.effect == "read"
	listed := agent.tools[_looked_for]
	object.get(listed, "issuer", "jwt") == "jwt"
	hook := object.union({"effect": "read"}, object.filter(listed, ["params", "audience", "resources", "labels"]))
}

# METADATA
# title: The names of the tool
# description: The tool's own, and for a reconcile hook also that of the tool it looks for.
names contains input.action.tool

names contains trim_suffix(input.action.tool, ".reconcile") if is_string(input.action.tool)

# A hook looks as the step <key>~reconcile~<n>. What is no text is undefined in one engine, an error in another.
_looked_for := trim_suffix(input.action.tool, ".reconcile") if {
	is_string(input.action.tool)
	is_string(input.step.key)
	contains(input.step.key, "~reconcile~")
}

# METADATA
# title: Opening, resuming or taking over
# description: True for the three actions that concern the run itself and have rules of their own.
run_action if input.action.tool in {"stepgrant.run.open", "stepgrant.run.resume", "stepgrant.run.takeover"}
