# METADATA
# title: What a grant may be
# description: |
#   Composes issuer, effect, lifetime, audience, labels, meters and the question to people from the settings. When a
#   part is undefined the whole grant is, and the action is denied.
# scope: package
package stepgrant.grants

import data.stepgrant.settings

# METADATA
# title: The grant
# description: The issuer is `jwt` unless the settings name another one; the lifetime is the shortest of all caps.
grant := object.union_n([
	{"issuer": "jwt", "effect": input.action.effect, "ttl": _ttl},
	object.filter(settings.tool, ["issuer", "params", "audience", "redeem", "digest_only", "duplicate"]),
	_at_resource,
]) if {
	settings.tool
}

grant := {} if settings.run_action

_ttl := min([
	data.stepgrant_config.ttl[input.action.effect],
	object.get(settings.tool, "ttl", 300),
	_wish,
])

# A wish can only shorten, and less than a second cannot be granted.
default _wish := 300

_wish := max([1, floor(input.requested.ttl)]) if is_number(input.requested.ttl)

_at_resource := {"audience": settings.tool.resources[input.action.resource]}

_at_resource := {} if not settings.tool.resources

# METADATA
# title: Labels
# description: What the result of this action carries from now on.
labels := object.get(settings.tool, "labels", [])

labels := [] if settings.run_action

# METADATA
# title: Meters
# description: |
#   What this action spends: `each` per action, or the number in the argument that `arg` names. A meter that cannot be
#   read is missing here, and the budget rule denies.
meters[name] := value if {
	some name, meter in settings.tool.meters
	value := _reading(meter)
}

_reading(meter) := meter.each

_reading(meter) := value if {
	value := input.action.args[meter.arg]
	is_number(value)
	value >= 0
}

# METADATA
# title: The question
# description: Who must answer, as the settings say for the tool, else for everything.
approval := object.union(data.stepgrant_config.approval, object.get(settings.tool, "approval", {}))

approval := data.stepgrant_config.approval if settings.run_action
