# METADATA
# title: Opening, resuming and taking over a run
# description: |
#   Whoever is enrolled for a listed agent may open; the same subject may resume; nobody takes over unless listed.
# scope: package
package stepgrant.rules.runs

import data.stepgrant.settings

# METADATA
# title: The run may be opened
# description: The agent is listed, and its settings do not name other subjects for opening.
# custom:
#   code: open_allowed
allow contains "open_allowed" if {
	input.action.tool == "stepgrant.run.open"
	_may_open
}

# METADATA
# title: This subject may not open runs of this agent
# description: The settings name who may open runs of this agent, and this workload is not among them.
# custom:
#   code: open_not_listed
deny contains "open_not_listed" if {
	input.action.tool == "stepgrant.run.open"
	settings.agent
	not _may_open
}

_may_open if {
	settings.agent
	not settings.agent.open
}

_may_open if input.identity.subject in settings.agent.open.subjects

# METADATA
# title: The run may be resumed
# description: The workload that held the run comes back for it.
# custom:
#   code: resume_by_same_subject
allow contains "resume_by_same_subject" if {
	input.action.tool == "stepgrant.run.resume"
	settings.agent
	_same_subject
}

# METADATA
# title: Another subject wants to resume
# description: Only the workload that held the run may resume it.
# custom:
#   code: resume_by_other_subject
deny contains "resume_by_other_subject" if {
	input.action.tool == "stepgrant.run.resume"
	not _same_subject
}

_same_subject if input.action.args.same_subject == true

# METADATA
# title: The run may be taken over
# description: The settings list this workload for taking over runs of this agent.
# custom:
#   code: takeover_listed
allow contains "takeover_listed" if {
	input.action.tool == "stepgrant.run.takeover"
	_may_take_over
}

# METADATA
# title: This subject may not take over
# description: Nobody takes over a run of another workload, or one whose lease still runs, unless the settings list it.
# custom:
#   code: takeover_not_listed
deny contains "takeover_not_listed" if {
	input.action.tool == "stepgrant.run.takeover"
	not _may_take_over
}

_may_take_over if input.identity.subject in settings.agent.takeover.subjects
