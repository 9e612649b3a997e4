package tools_test

import data.sample_test as sample
import data.stepgrant

_note := sample.call("note.put", "idempotent", {})

_key := sample.call("key.rotate", "once", {})

test_an_agent_that_is_not_listed_is_denied if {
	stepgrant.decision == sample.denied({"agent_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.changed(_note, {"agent": {"name": "stranger"}})
}

test_no_agent_is_denied if {
	stepgrant.decision == sample.denied({"agent_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.lacking(_note, "agent", "name")
}

test_a_tool_that_is_not_listed_is_denied if {
	stepgrant.decision == sample.denied({"tool_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.call("disk.wipe", "once", {})
}

test_no_tool_is_denied if {
	stepgrant.decision == sample.denied({"tool_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.lacking(_note, "action", "tool")
}

test_an_effect_looser_than_listed_is_denied if {
	every call in [
		sample.call("note.put", "read", {}),
		sample.call("mail.send", "read", {}),
		sample.call("mail.send", "idempotent", {}),
	] {
		stepgrant.decision == sample.denied({"effect_not_allowed"}) with data.stepgrant_config as sample.config
			with input as call
	}
}

test_no_effect_is_denied if {
	stepgrant.decision == sample.denied({"effect_not_allowed"}) with data.stepgrant_config as sample.config
		with input as sample.lacking(_note, "action", "effect")
}

test_an_effect_stricter_than_listed_is_allowed if {
	every effect in ["once", "idempotent"] {
		stepgrant.decision.grant.effect == effect with data.stepgrant_config as sample.config
			with input as sample.call("book.read", effect, {})
	}
}

test_a_resource_that_is_not_listed_is_denied if {
	stepgrant.decision == sample.denied({"resource_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.changed(_key, {"action": {"resource": "vault/b"}})
}

test_no_resource_is_denied if {
	stepgrant.decision == sample.denied({"resource_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.lacking(_key, "action", "resource")
}

test_a_listed_resource_names_the_audience if {
	grant := {"issuer": "jwt", "effect": "once", "ttl": 60, "audience": "https://a.example"}
	stepgrant.decision == sample.allowed(grant) with data.stepgrant_config as sample.config
		with input as sample.changed(_key, {"action": {"resource": "vault/a"}})
}

test_the_reconcile_hook_of_a_listed_tool_may_look if {
	grant := {"issuer": "jwt", "effect": "read", "ttl": 300, "audience": "https://a.example"}
	stepgrant.decision == sample.allowed(grant) with data.stepgrant_config as sample.config
		with input as sample.changed(sample.look("key.rotate"), {"action": {"resource": "vault/a"}})
}

test_the_reconcile_hook_needs_no_question_and_no_budget if {
	grant := {"issuer": "jwt", "effect": "read", "ttl": 300}
	stepgrant.decision == sample.allowed(grant) with data.stepgrant_config as sample.config
		with input as sample.look("refund.create")
	stepgrant.decision.effect == "allow" with data.stepgrant_config as sample.config
		with input as sample.look("file.publish")
}

test_a_reconcile_hook_never_gets_the_secret_of_its_tool if {
	every requested in [{}, {"issuer": "static"}, {"issuer": "jwt"}] {
		stepgrant.decision == sample.denied({"tool_not_listed"}) with data.stepgrant_config as sample.config
			with input as sample.changed(sample.look("card.charge"), {"requested": requested})
	}
}

test_a_reconcile_hook_with_another_secret_is_listed_itself if {
	entry := {"card.charge.reconcile": {"effect": "read", "issuer": "static", "params": {"name": "card-look"}}}
	grant := {"issuer": "static", "effect": "read", "ttl": 300, "params": {"name": "card-look"}}
	stepgrant.decision == sample.allowed(grant) with input as sample.look("card.charge")
		with data.stepgrant_config as object.union(sample.config, {"agents": {"clerk": {"tools": entry}}})
}

test_a_reconcile_hook_only_looks if {
	every effect in ["once", "idempotent"] {
		stepgrant.decision == sample.denied({"tool_not_listed"}) with data.stepgrant_config as sample.config
			with input as sample.changed(sample.look("note.put"), {"action": {"effect": effect}})
	}
}

test_a_reconcile_hook_is_a_step_of_its_own if {
	every key in ["1", "1~reconcile", "reconcile~1", 1, null] {
		stepgrant.decision == sample.denied({"tool_not_listed"}) with data.stepgrant_config as sample.config
			with input as sample.changed(sample.look("refund.create"), {"step": {"key": key}})
	}
	stepgrant.decision == sample.denied({"tool_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.lacking(sample.look("refund.create"), "step", "key")
}

test_a_reconcile_hooks_step_looks_and_does_nothing_else if {
	stepgrant.decision == sample.denied({"effect_not_allowed"}) with data.stepgrant_config as sample.config
		with input as sample.changed(sample.call("mail.send", "read", {}), {"step": {"key": "1~reconcile~1"}})
}

test_the_reconcile_hook_of_another_tool_is_denied if {
	stepgrant.decision == sample.denied({"tool_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.look("disk.wipe")
}
