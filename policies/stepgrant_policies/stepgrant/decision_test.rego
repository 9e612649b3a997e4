package decision_test

import data.sample_test as sample
import data.stepgrant

_note := sample.call("note.put", "idempotent", {"text": "x"})

test_an_allow_is_whole if {
	stepgrant.decision == sample.allowed({"issuer": "jwt", "effect": "idempotent", "ttl": 120}) with input as _note
		with data.stepgrant_config as sample.config
}

test_nothing_said_is_denied if {
	stepgrant.decision == sample.denied({"agent_not_listed"}) with input as {}
		with data.stepgrant_config as sample.config
}

test_no_settings_is_denied if {
	stepgrant.decision == sample.denied({"agent_not_listed"}) with input as _note
		with data.stepgrant_config as {}
}

test_what_nobody_allows_is_denied if {
	stepgrant.decision == {"effect": "deny", "reasons": ["no_rule_matched"]} with input as _note
		with data.stepgrant_config as sample.config
		with stepgrant.allow as set()
}

test_a_question_needs_someone_who_allows if {
	stepgrant.decision == {"effect": "deny", "reasons": ["no_rule_matched"]} with input as _note
		with data.stepgrant_config as sample.config
		with stepgrant.allow as set()
		with stepgrant.require_approval as {"ask"}
}

test_deny_beats_require_approval_beats_allow if {
	stepgrant.decision == sample.denied({"no"}) with input as _note
		with data.stepgrant_config as sample.config
		with stepgrant.require_approval as {"ask"}
		with stepgrant.deny as {"no"}
	stepgrant.decision.effect == "require_approval" with input as _note
		with data.stepgrant_config as sample.config
		with stepgrant.require_approval as {"ask"}
}

test_a_grant_that_cannot_be_composed_is_denied if {
	stepgrant.decision == {"effect": "deny", "reasons": ["no_rule_matched"]} with input as _note
		with data.stepgrant_config as object.union(object.remove(sample.config, ["ttl"]), {"ttl": {}})
}
