package amounts_test

import data.sample_test as sample
import data.stepgrant

_grant := {"issuer": "jwt", "effect": "once", "ttl": 60}

test_a_small_amount_is_allowed if {
	every amount in [0, 0.5, 100] {
		stepgrant.decision == object.union(sample.allowed(_grant), {"meters": {"usd": amount}}) with input as sample.call(
			"refund.create",
			"once", {"amount": amount},
		)
			with data.stepgrant_config as sample.config
	}
}

test_a_larger_amount_needs_a_person if {
	every amount in [100.01, 300] {
		stepgrant.decision == {
			"effect": "require_approval",
			"reasons": {"amount_needs_approval"},
			"grant": _grant,
			"labels": [],
			"meters": {"usd": amount},
			"approval": {"groups": [], "quorum": 1, "answer_within": 86400, "valid_for": 900},
		} with input as sample.call("refund.create", "once", {"amount": amount})
			with data.stepgrant_config as sample.config
	}
}

test_an_amount_over_the_limit_is_denied if {
	stepgrant.decision == sample.denied({"amount_over_limit"}) with data.stepgrant_config as sample.config
		with input as sample.call("refund.create", "once", {"amount": 300.01})
}

test_an_amount_that_cannot_be_read_is_denied if {
	every amount in [null, false, "5", -1, [1], {"n": 1}] {
		stepgrant.decision == sample.denied({
			"amount_unreadable",
			"amount_over_limit",
			"budget_exceeded",
		}) with input as sample.call("refund.create", "once", {"amount": amount})
			with data.stepgrant_config as sample.config
	}
}

test_no_amount_is_denied if {
	every args in [{}, null] {
		stepgrant.decision == sample.denied({
			"amount_unreadable",
			"amount_over_limit",
			"budget_exceeded",
		}) with input as sample.call("refund.create", "once", args)
			with data.stepgrant_config as sample.config
	}
}

test_numbers_are_compared_as_numbers if {
	stepgrant.decision.effect == "allow" with data.stepgrant_config as sample.config
		with input as sample.call("refund.create", "once", {"amount": 9})
	stepgrant.decision.effect == "deny" with data.stepgrant_config as sample.config
		with input as sample.call("refund.create", "once", {"amount": 1000})
}
