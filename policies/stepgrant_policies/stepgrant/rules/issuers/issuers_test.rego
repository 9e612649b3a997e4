package issuers_test

import data.sample_test as sample
import data.stepgrant

_note := sample.call("note.put", "idempotent", {})

_card := sample.call("card.charge", "once", {})

test_another_issuer_is_denied if {
	stepgrant.decision == sample.denied({"issuer_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.changed(_note, {"requested": {"issuer": "static"}})
}

test_no_word_on_the_issuer_is_denied if {
	stepgrant.decision == sample.denied({"issuer_not_listed"}) with data.stepgrant_config as sample.config
		with input as sample.lacking(_note, "requested", "issuer")
}

test_a_static_secret_only_where_the_settings_say_so if {
	grant := {"issuer": "static", "effect": "once", "ttl": 20, "params": {"name": "card-api"}}
	every wish in [null, "static"] {
		stepgrant.decision == sample.allowed(grant) with data.stepgrant_config as sample.config
			with input as sample.changed(_card, {"requested": {"issuer": wish}})
	}
}

test_the_default_may_be_asked_for_by_name if {
	stepgrant.decision.effect == "allow" with data.stepgrant_config as sample.config
		with input as sample.changed(_note, {"requested": {"issuer": "jwt"}})
}
