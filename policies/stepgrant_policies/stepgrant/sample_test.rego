# METADATA
# title: What the tests of the starter policy share
# description: Settings of their own, so that editing stepgrant_config/data.json breaks no test, and one complete input.
# scope: package
package sample_test

# METADATA
# title: Settings
# description: One agent with every kind of tool.
config := {
	"agents": {"clerk": {
		"budgets": {"usd": 500, "mails": 2},
		"tools": {
			"book.read": {"effect": "read", "labels": ["pii:customer"]},
			"note.put": {"effect": "idempotent"},
			"mail.send": {"effect": "once", "meters": {"mails": {"each": 1}}},
			"file.publish": {"effect": "once", "ask": true, "approval": {"groups": ["press"], "quorum": 2}},
			"key.rotate": {"effect": "once", "resources": {"vault/a": "https://a.example"}},
			"card.charge": {"effect": "once", "issuer": "static", "params": {"name": "card-api"}, "ttl": 20},
			"refund.create": {
				"effect": "once",
				"amount": {"arg": "amount", "max": 300, "ask_above": 100},
				"meters": {"usd": {"arg": "amount"}},
			},
		},
	}},
	"approval": {"groups": [], "quorum": 1, "answer_within": 86400, "valid_for": 900},
	"flows": {"pii:customer": {"blocks": ["mail.send"]}},
	"resume": {"ask_after_parked_seconds": 3600},
	"ttl": {"read": 300, "idempotent": 120, "once": 60},
}

# METADATA
# title: An input
# description: The complete input of one call of the agent `clerk`.
call(tool, effect, args) := {
	"tenant": "default",
	"identity": {
		"method": "enrolled_key",
		"trust_domain": "default",
		"subject": "wl_clerk",
		"attributes": {},
		"attested_at": 1700000000,
	},
	"agent": {"name": "clerk", "version": null},
	"claimed": {"labels": {}, "context": {}, "principal": null},
	"principal": null,
	"run": {
		"id": "run_1",
		"key": "daily",
		"epoch": 1,
		"resumed": false,
		"opened_at": 1700000000,
		"parked_seconds": 0,
		"step_count": 0,
	},
	"step": {"key": "1", "attempt": 1, "previous_outcome": null},
	"action": {
		"tool": tool,
		"resource": null,
		"args": args,
		"digest": "sha-256:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
		"effect": effect,
		"idempotency_key": null,
	},
	"history": {
		"counts": {"tool": {}, "effect": {}, "outcome": {}},
		"labels": [],
		"meters": {},
		"tools": [],
		"denials": 0,
		"in_flight": 0,
	},
	"approval": null,
	"requested": {"issuer": null, "ttl": null, "params": {}},
	"time": {"unix": 1700042400, "rfc3339": "2023-11-15T10:00:00Z", "weekday": "wednesday", "hour": 10},
}

# METADATA
# title: A reconcile hook's input
# description: The look of the hook of this tool, as the step that it runs as.
look(tool) := changed(call(concat("", [tool, ".reconcile"]), "read", {}), {"step": {"key": "1~reconcile~1"}})

# METADATA
# title: A changed input
# description: The call with members of its members replaced.
changed(base, changes) := object.union(base, changes)

# METADATA
# title: An input that lacks something
# description: The call without one member of a member.
lacking(base, member, name) := object.union(
	object.remove(base, [member]),
	{member: object.remove(base[member], [name])},
)

# METADATA
# title: An input in which something is something else
# description: The call with one member of a member replaced as a whole, where `changed` would merge objects.
replaced(base, member, name, value) := object.union(
	lacking(base, member, name),
	{member: {name: value}},
)

# METADATA
# title: A denial
# description: The whole decision with these codes.
denied(codes) := {"effect": "deny", "reasons": codes}

# METADATA
# title: An allowance
# description: The whole decision for a listed tool that carries nothing.
allowed(grant) := {"effect": "allow", "reasons": {"tool_listed"}, "grant": grant, "labels": [], "meters": {}}
