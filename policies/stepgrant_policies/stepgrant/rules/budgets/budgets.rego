# METADATA
# title: Budgets
# description: What one run may spend, this action included. Every meter of a tool needs a budget of its agent.
# scope: package
package stepgrant.rules.budgets

import data.stepgrant.grants
import data.stepgrant.settings

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

_covered(name) if object.get(input.history.meters, name, 0) + grants.meters[name] <= settings.agent.budgets[name]
