# METADATA
# title: Budgets
# description: What one run may spend, this action included. Every meter of a tool needs a budget of its agent.
# scope: package
package stepgrant.rules.budgets

import data.stepgrant.grants
import data.stepgrant.settings
import data.stepgrant.units

# METADATA
# title: The run's budget does not cover this action
# description: |
#   A meter of this tool cannot be read, has no budget, or what the run has spent together with this action is more
#   than the budget.
# custom:
#   code: budget_exceeded
deny contains "budget_exceeded" if {
	some name, _ in settings.tool.meters
	not _covered(name)
}

_covered(name) if {
	# What is no object is undefined for object.get in one engine, an error in another.
	is_object(input.history.meters)
	before := units.millionths(object.get(input.history.meters, name, 0))
	now := units.millionths(grants.meters[name])
	before + now <= units.millionths(settings.agent.budgets[name])
}
