package settings_test

import data.sample_test as sample
import data.stepgrant.settings

test_a_listed_tool_is_read_as_it_is if {
	settings.tool == {"effect": "idempotent"} with data.stepgrant_config as sample.config
		with input as sample.call("note.put", "idempotent", {})
}

test_a_hook_takes_over_only_what_leads_to_the_target if {
	settings.tool == {"effect": "read", "issuer": "static", "params": {"name": "card-api"}} with input as sample.call(
		"card.charge.reconcile",
		"read", {},
	)
		with data.stepgrant_config as sample.config
}

test_what_is_not_listed_is_undefined if {
	not settings.tool with data.stepgrant_config as sample.config with input as sample.call("x", "read", {})
	not settings.agent with data.stepgrant_config as sample.config with input as {}
	not settings.run_action with data.stepgrant_config as sample.config with input as {}
}
