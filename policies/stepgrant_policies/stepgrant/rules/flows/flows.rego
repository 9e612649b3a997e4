# METADATA
# title: Flows of data
# description: What a run has read decides what it may still do. Labels never wear off within a run.
# scope: package
package stepgrant.rules.flows

import data.stepgrant.settings

# METADATA
# title: A label of this run blocks this tool
# description: |
#   An earlier step of this run returned data with a label whose flow rule in the settings blocks this tool: whoever
#   has read customer data does not write to the outside any more. A blocked tool's reconcile hook is blocked with it.
# custom:
#   code: label_blocks_tool
deny contains "label_blocks_tool" if {
	settings.tool
	not _clear
}

_clear if {
	every label in input.history.labels {
		not _blocked(label)
	}
}

# A hook's arguments go where those of its tool go.
_blocked(label) if {
	some tool in settings.names
	tool in data.stepgrant_config.flows[label].blocks
}
