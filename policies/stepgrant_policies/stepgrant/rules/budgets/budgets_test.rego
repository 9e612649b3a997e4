package budgets_test

import data.sample_test as sample
import data.stepgrant

_refund := sample.call("refund.create", "once", {"amount": 50})

_mail := sample.call("mail.send", "once", {})

_grant := {"issuer": "jwt", "effect": "once", "ttl": 60}

test_the_last_of_the_budget_may_be_spent if {
	stepgrant.decision == object.union(sample.allowed(_grant), {"meters": {"usd": 50}}) with input as sample.changed(
		_refund,
		{"history": {"meters": {"usd": 450, "other": 1000}}},
	)
		with data.stepgrant_config as sample.config
}

test_more_than_the_budget_is_denied if {
	stepgrant.decision == sample.denied({"budget_exceeded"}) with data.stepgrant_config as sample.config
		with input as sample.changed(_refund, {"history": {"meters": {"usd": 450.01}}})
	stepgrant.decision == sample.denied({"budget_exceeded"}) with data.stepgrant_config as sample.config
		with input as sample.changed(_mail, {"history": {"meters": {"mails": 2}}})
}

test_not_knowing_what_was_spent_is_denied if {
	stepgrant.decision == sample.denied({"budget_exceeded"}) with data.stepgrant_config as sample.config
		with input as sample.lacking(_mail, "history", "meters")
	every spent in [0.2, null, "0", []] {
		stepgrant.decision == sample.denied({"budget_exceeded"}) with data.stepgrant_config as sample.config
			with input as sample.replaced(_mail, "history", "meters", spent)
	}
}

test_a_meter_without_a_budget_is_denied if {
	stepgrant.decision == sample.denied({"budget_exceeded"}) with input as _mail
		with data.stepgrant_config as object.union(
			object.remove(sample.config, ["agents"]),
			{"agents": {"clerk": object.remove(sample.config.agents.clerk, ["budgets"])}},
		)
}
