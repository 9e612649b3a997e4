package grants_test

import data.sample_test as sample
import data.stepgrant.grants

_card := sample.call("card.charge", "once", {})

_note := sample.call("note.put", "idempotent", {})

test_the_shortest_cap_counts if {
	grants.grant.ttl == 20 with data.stepgrant_config as sample.config with input as _card
	grants.grant.ttl == 120 with data.stepgrant_config as sample.config with input as _note
	grants.grant.ttl == 60 with data.stepgrant_config as sample.config
		with input as sample.call("note.put", "once", {})
}

test_a_wish_can_only_shorten if {
	cases := {600: 20, 21: 20, 20: 20, 5: 5, 1.5: 1, 0: 1, -7: 1, "5": 20, null: 20}
	every wish, ttl in cases {
		grants.grant.ttl == ttl with data.stepgrant_config as sample.config
			with input as sample.changed(_card, {"requested": {"ttl": wish}})
	}
}

test_no_wish_is_no_change if {
	grants.grant.ttl == 20 with data.stepgrant_config as sample.config
		with input as sample.lacking(_card, "requested", "ttl")
}

test_the_tool_says_how_its_grant_is if {
	special := {
		"effect": "read",
		"audience": "https://tool.example",
		"redeem": "required",
		"digest_only": true,
		"duplicate": "run",
		"issuer": "jwt",
	}
	grants.grant == {
		"issuer": "jwt",
		"effect": "read",
		"ttl": 300,
		"audience": "https://tool.example",
		"redeem": "required",
		"digest_only": true,
		"duplicate": "run",
	} with input as sample.call("special", "read", {})
		with data.stepgrant_config as object.union(sample.config, {"agents": {"clerk": {"tools": {"special": special}}}})
}

test_the_question_is_as_for_everything_unless_the_tool_says_otherwise if {
	common := {"groups": [], "quorum": 1, "answer_within": 86400, "valid_for": 900}
	grants.approval == common with input as _note with data.stepgrant_config as sample.config
	grants.approval == {
		"groups": ["press"],
		"quorum": 2,
		"answer_within": 86400,
		"valid_for": 900,
	} with input as sample.call("file.publish", "once", {})
		with data.stepgrant_config as sample.config
}

test_a_rule_of_yours_may_ask_about_a_resume if {
	common := {"groups": [], "quorum": 1, "answer_within": 86400, "valid_for": 900}
	grants.approval == common with data.stepgrant_config as sample.config
		with input as sample.call("stepgrant.run.resume", "once", {})
}
