package runs_test

import data.sample_test as sample
import data.stepgrant

_args := {
	"takeover": false,
	"same_subject": true,
	"lease_lapsed": true,
	"parked_seconds": 0,
	"agent": "clerk",
}

_open := sample.call("stepgrant.run.open", "once", _args)

_resume := sample.call("stepgrant.run.resume", "once", _args)

_takeover := sample.call("stepgrant.run.takeover", "once", object.union(_args, {
	"takeover": true,
	"same_subject": false,
	"lease_lapsed": false,
}))

_closed := object.union(sample.config, {"agents": {"clerk": {
	"open": {"subjects": ["wl_front"]},
	"takeover": {"subjects": ["wl_rescue"]},
}}})

_allowed(code) := {"effect": "allow", "reasons": {code}, "grant": {}, "labels": [], "meters": {}}

test_whoever_is_enrolled_may_open if {
	stepgrant.decision == _allowed("open_allowed") with input as _open
		with data.stepgrant_config as sample.config
}

test_an_agent_that_is_not_listed_may_not_open if {
	stepgrant.decision == sample.denied({"agent_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.changed(_open, {"agent": {"name": "stranger"}})
}

test_only_listed_subjects_open_where_there_is_a_list if {
	stepgrant.decision == sample.denied({"open_not_listed"}) with input as _open
		with data.stepgrant_config as _closed
	stepgrant.decision == _allowed("open_allowed") with data.stepgrant_config as _closed
		with input as sample.changed(_open, {"identity": {"subject": "wl_front"}})
}

test_no_subject_may_not_open_where_there_is_a_list if {
	stepgrant.decision == sample.denied({"open_not_listed"}) with data.stepgrant_config as _closed
		with input as sample.lacking(_open, "identity", "subject")
}

test_the_same_subject_may_resume if {
	stepgrant.decision == _allowed("resume_by_same_subject") with input as _resume
		with data.stepgrant_config as sample.config
}

test_another_subject_may_not_resume if {
	stepgrant.decision == sample.denied({"resume_by_other_subject"}) with data.stepgrant_config as sample.config
		with input as sample.changed(_resume, {"action": {"args": {"same_subject": false}}})
}

test_not_knowing_the_subject_may_not_resume if {
	every args in [null, {}, {"same_subject": null}, {"same_subject": "true"}] {
		stepgrant.decision == sample.denied({"resume_by_other_subject"}) with data.stepgrant_config as sample.config
			with input as sample.replaced(_resume, "action", "args", args)
	}
}

test_nobody_takes_over if {
	stepgrant.decision == sample.denied({"takeover_not_listed"}) with input as _takeover
		with data.stepgrant_config as sample.config
	stepgrant.decision == sample.denied({"takeover_not_listed"}) with input as _takeover
		with data.stepgrant_config as _closed
}

test_no_subject_takes_over if {
	stepgrant.decision == sample.denied({"takeover_not_listed"}) with data.stepgrant_config as _closed
		with input as sample.lacking(_takeover, "identity", "subject")
}

test_a_listed_subject_takes_over if {
	stepgrant.decision == _allowed("takeover_listed") with data.stepgrant_config as _closed
		with input as sample.changed(_takeover, {"identity": {"subject": "wl_rescue"}})
}

test_another_verb_is_no_action_of_the_run if {
	stepgrant.decision == sample.denied({"tool_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.call("stepgrant.run.erase", "once", _args)
}

test_parking_for_long_does_not_stop_a_resume if {
	stepgrant.decision == _allowed("resume_by_same_subject") with data.stepgrant_config as sample.config
		with input as sample.changed(_resume, {"run": {"resumed": true, "parked_seconds": 1000000}})
}
