# METADATA
# title: Approvals
# description: Actions that a person answers for, whatever their amount.
# scope: package
package stepgrant.rules.approvals

import data.stepgrant.settings

# METADATA
# title: This tool always needs a person
# description: The settings say `ask` for this tool.
# custom:
#   code: tool_needs_approval
require_approval contains "tool_needs_approval" if settings.tool.ask

# METADATA
# title: The run was parked for long
# description: |
#   The run came back after more than `resume.ask_after_parked_seconds`. What was fine when it stopped may not be fine
#   any more, so a person looks at each action that cannot be undone.
# custom:
#   code: long_park_needs_approval
require_approval contains "long_park_needs_approval" if {
	settings.tool
	not _fresh
}

_fresh if input.action.effect in {"read", "idempotent"}

_fresh if input.run.resumed == false

_fresh if {
	is_number(input.run.parked_seconds)
	input.run.parked_seconds <= data.stepgrant_config.resume.ask_after_parked_seconds
}
