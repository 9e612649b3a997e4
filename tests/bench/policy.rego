package stepgrant

# Fifteen lines as a small team would write them: an allow-list, an amount limit, a TTL cap, who may open and resume.

default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

tools := {"bench.read": "read", "bench.pay": "once"}

allowed contains "tool_listed" if tools[input.action.tool] == input.action.effect

allowed contains "own_run" if input.action.tool == "stepgrant.run.open"

denied contains "too_much" if input.action.args.amount > 1000

decision := {"effect": "deny", "reasons": sort(denied)} if count(denied) > 0

decision := {"effect": "allow", "reasons": sort(allowed), "grant": {"effect": input.action.effect, "ttl": min([60, 300])}} if {
	count(denied) == 0
	count(allowed) > 0
}
