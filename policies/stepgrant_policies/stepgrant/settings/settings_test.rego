package settings_test

import data.sample_test as sample
import data.stepgrant.settings

test_a_listed_tool_is_read_as_it_is if {
	settings.tool == {"effect": "idempotent"} with data.stepgrant_config as sample.config
		with input as sample.call("note.put", "idempotent", {})
}

test_a_hook_takes_over_only_what_leads_to_the_target if {
	settings.tool == {"effect": "read"} with input as sample.look("refund.create")
		with data.stepgrant_config as sample.config
	entry := {"refund.create": {"params": {"a": 1}, "audience": "https://a.example", "labels": ["a:b"], "ttl": 9}}
	hook := {"effect": "read", "params": {"a": 1}, "audience": "https://a.example", "labels": ["a:b"]}
	settings.tool == hook with input as sample.look("refund.create")
		with data.stepgrant_config as object.union(sample.config, {"agents": {"clerk": {"tools": entry}}})
}

test_a_hook_takes_over_no_secret if {
	not settings.tool with data.stepgrant_config as sample.config with input as sample.look("card.charge")
	entry := {"card.charge": {"issuer": "jwt"}}
	settings.tool.effect == "read" with input as sample.look("card.charge")
		with data.stepgrant_config as object.union(sample.config, {"agents": {"clerk": {"tools": entry}}})
}

test_a_hook_has_two_names if {
	settings.names == {"card.charge.reconcile", "card.charge"} with input as sample.look("card.charge")
	settings.names == {"card.charge"} with input as sample.call("card.charge", "once", {})
	settings.names == {7} with input as sample.call(7, "once", {})
	settings.names == set() with input as {}
}

test_what_is_not_listed_is_undefined if {
	not settings.tool with data.stepgrant_config as sample.config with input as sample.call("x", "read", {})
	not settings.agent with data.stepgrant_config as sample.config with input as {}
	not settings.run_action with data.stepgrant_config as sample.config with input as {}
}
