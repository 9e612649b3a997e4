package approvals_test

import data.sample_test as sample
import data.stepgrant

_publish := sample.call("file.publish", "once", {})

_mail := sample.call("mail.send", "once", {})

_mailing := {"grant": {"issuer": "jwt", "effect": "once", "ttl": 60}, "labels": [], "meters": {"mails": 1}}

_anyone := {"groups": [], "quorum": 1, "answer_within": 86400, "valid_for": 900}

test_a_tool_that_always_asks if {
	stepgrant.decision == {
		"effect": "require_approval",
		"reasons": {"tool_needs_approval"},
		"grant": {"issuer": "jwt", "effect": "once", "ttl": 60},
		"labels": [],
		"meters": {},
		"approval": {"groups": ["press"], "quorum": 2, "answer_within": 86400, "valid_for": 900},
	} with input as _publish
		with data.stepgrant_config as sample.config
}

test_a_run_that_was_parked_for_long_asks_again if {
	stepgrant.decision == object.union(_mailing, {
		"effect": "require_approval",
		"reasons": {"long_park_needs_approval"},
		"approval": _anyone,
	}) with input as sample.changed(_mail, {"run": {"resumed": true, "parked_seconds": 3601}})
		with data.stepgrant_config as sample.config
}

test_a_short_park_asks_nobody if {
	stepgrant.decision == object.union(_mailing, {
		"effect": "allow",
		"reasons": {"tool_listed"},
	}) with input as sample.changed(_mail, {"run": {"resumed": true, "parked_seconds": 3600}})
		with data.stepgrant_config as sample.config
}

test_what_can_be_repeated_is_not_asked_about if {
	every call in [sample.call("book.read", "read", {}), sample.call("note.put", "idempotent", {})] {
		stepgrant.decision.effect == "allow" with data.stepgrant_config as sample.config
			with input as sample.changed(call, {"run": {"resumed": true, "parked_seconds": 1000000}})
	}
}

test_not_knowing_the_run_asks if {
	every broken in [
		object.remove(_mail, ["run"]),
		sample.lacking(sample.changed(_mail, {"run": {"parked_seconds": 3601}}), "run", "resumed"),
		sample.lacking(sample.changed(_mail, {"run": {"resumed": true}}), "run", "parked_seconds"),
		sample.changed(_mail, {"run": {"resumed": true, "parked_seconds": null}}),
	] {
		stepgrant.decision == object.union(_mailing, {
			"effect": "require_approval",
			"reasons": {"long_park_needs_approval"},
			"approval": _anyone,
		}) with input as broken
			with data.stepgrant_config as sample.config
	}
}
