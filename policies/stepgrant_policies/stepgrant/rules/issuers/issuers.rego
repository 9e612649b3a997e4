# METADATA
# title: Who makes the credential
# description: Policy chooses the issuer; the agent may only ask for the one that is chosen anyway.
# scope: package
package stepgrant.rules.issuers

import data.stepgrant.settings

# METADATA
# title: Another issuer was asked for
# description: |
#   The agent asked for an issuer that the settings do not name for this tool. Without a name it is `jwt`; a static
#   secret is given out only where the settings say `static`.
# custom:
#   code: issuer_not_listed
deny contains "issuer_not_listed" if {
	settings.tool
	not _issuer_fits
}

_issuer_fits if input.requested.issuer == null

_issuer_fits if input.requested.issuer == object.get(settings.tool, "issuer", "jwt")
