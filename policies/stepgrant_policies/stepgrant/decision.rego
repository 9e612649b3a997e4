# METADATA
# title: The decision
# description: |
#   Folds what the concerns below stepgrant/rules say. deny beats require_approval beats allow; an allow needs a
#   positive reason. A new concern is a new package below stepgrant/rules that adds codes to these three sets.
# scope: package
package stepgrant

import data.stepgrant.grants

# METADATA
# title: No rule matched
# description: No rule allowed this action. What nobody allowed is denied.
# custom:
#   code: no_rule_matched
default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

# METADATA
# title: The answer to the broker
# description: One object of schemas/decision.json for one action.
# entrypoint: true
decision := {"effect": "deny", "reasons": deny} if count(deny) > 0

decision := object.union(_consent, {
	"effect": "require_approval",
	"reasons": require_approval,
	"approval": grants.approval,
}) if {
	count(deny) == 0
	count(require_approval) > 0
	count(allow) > 0
}

decision := object.union(_consent, {"effect": "allow", "reasons": allow}) if {
	count(deny) == 0
	count(require_approval) == 0
	count(allow) > 0
}

# METADATA
# title: Codes that refuse
# description: Every code that a concern gives against this action.
deny contains code if {
	some concern
	some code in data.stepgrant.rules[concern].deny
}

# METADATA
# title: Codes that ask a person
# description: Every code for which a person must answer first.
require_approval contains code if {
	some concern
	some code in data.stepgrant.rules[concern].require_approval
}

# METADATA
# title: Codes that allow
# description: Every positive reason for this action.
allow contains code if {
	some concern
	some code in data.stepgrant.rules[concern].allow
}

_consent := {"grant": grants.grant, "labels": grants.labels, "meters": grants.meters}
