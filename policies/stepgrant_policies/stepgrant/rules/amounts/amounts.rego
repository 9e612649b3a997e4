# METADATA
# title: Amounts
# description: |
#   Limits on the number in the argument that `amount.arg` names. Rego finds null and false smaller than any number, so
#   what is no number is refused before it is compared.
# scope: package
package stepgrant.rules.amounts

import data.stepgrant.settings

_amount := value if {
	value := input.action.args[settings.tool.amount.arg]
	is_number(value)
	value >= 0
}

# METADATA
# title: The amount cannot be read
# description: The argument that holds the amount is missing, is not a number, or is negative.
# custom:
#   code: amount_unreadable
deny contains "amount_unreadable" if {
	settings.tool.amount
	not _readable
}

_readable if _amount >= 0

# METADATA
# title: The amount is over the limit
# description: It is more than `amount.max` of the tool.
# custom:
#   code: amount_over_limit
deny contains "amount_over_limit" if {
	settings.tool.amount
	not _within_limit
}

_within_limit if _amount <= settings.tool.amount.max

# METADATA
# title: The amount needs a person
# description: It is more than `amount.ask_above` of the tool.
# custom:
#   code: amount_needs_approval
require_approval contains "amount_needs_approval" if {
	settings.tool.amount.ask_above
	not _small
}

_small if _amount <= settings.tool.amount.ask_above
