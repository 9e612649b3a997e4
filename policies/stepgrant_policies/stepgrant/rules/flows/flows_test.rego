package flows_test

import data.sample_test as sample
import data.stepgrant

_mail := sample.call("mail.send", "once", {})

_grant := {"issuer": "jwt", "effect": "once", "ttl": 60}

test_reading_leaves_its_label if {
	stepgrant.decision == {
		"effect": "allow",
		"reasons": {"tool_listed"},
		"grant": {"issuer": "jwt", "effect": "read", "ttl": 300},
		"labels": ["pii:customer"],
		"meters": {},
	} with input as sample.call("book.read", "read", {})
		with data.stepgrant_config as sample.config
}

test_a_hook_that_looks_leaves_the_label_too if {
	stepgrant.decision.labels == ["pii:customer"] with data.stepgrant_config as sample.config
		with input as sample.look("book.read")
}

test_a_hook_is_blocked_with_its_tool_even_when_it_is_listed if {
	carried := {"history": {"labels": ["pii:customer"]}}
	entry := {"mail.send.reconcile": {"effect": "read"}}
	every tools in [{}, entry] {
		stepgrant.decision == sample.denied({"label_blocks_tool"}) with input as sample.changed(
			sample.look("mail.send"),
			carried,
		)
			with data.stepgrant_config as object.union(sample.config, {"agents": {"clerk": {"tools": tools}}})
	}
	stepgrant.decision.effect == "allow" with data.stepgrant_config as sample.config
		with input as sample.look("mail.send")
	stepgrant.decision.effect == "allow" with data.stepgrant_config as sample.config
		with input as sample.changed(sample.look("key.rotate"), object.union(carried, {"action": {"resource": "vault/a"}}))
}

test_whoever_read_customer_data_does_not_write_outside if {
	stepgrant.decision == sample.denied({"label_blocks_tool"}) with data.stepgrant_config as sample.config
		with input as sample.changed(_mail, {"history": {"labels": ["a:b", "pii:customer"]}})
}

test_not_knowing_the_labels_is_denied if {
	stepgrant.decision == sample.denied({"label_blocks_tool"}) with data.stepgrant_config as sample.config
		with input as sample.lacking(_mail, "history", "labels")
}

test_other_labels_and_other_tools_are_not_blocked if {
	stepgrant.decision == object.union(sample.allowed(_grant), {"meters": {"mails": 1}}) with input as sample.changed(
		_mail,
		{"history": {"labels": ["a:b"]}},
	)
		with data.stepgrant_config as sample.config
	stepgrant.decision.effect == "allow" with data.stepgrant_config as sample.config
		with input as sample.changed(
			sample.call("note.put", "idempotent", {}),
			{"history": {"labels": ["pii:customer"]}},
		)
}

# A misspelt tool would not be blocked, so the settings of this folder are looked at themselves.
test_the_settings_block_tools_that_exist if {
	listed := {tool | some agent in data.stepgrant_config.agents; some tool, _ in agent.tools}
	every flow in data.stepgrant_config.flows {
		every tool in flow.blocks {
			tool in listed
		}
	}
}

test_the_settings_use_flows_for_labels_that_exist if {
	carried := {label |
		some agent in data.stepgrant_config.agents
		some tool in agent.tools
		some label in object.get(tool, "labels", [])
	}
	every label, _ in data.stepgrant_config.flows {
		label in carried
	}
}
