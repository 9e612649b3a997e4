"""The broker's own policy in Vault, as HCL: the least that its issuers and its signer need, each line with its reason.

Where Vault can tell parameters apart, only those that the broker sends are allowed: leases are taken back below our
issuers' roles only, and at once (`sync`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SELF: Final[Mapping[str, tuple[str, ...]]] = {
    "auth/token/lookup-self": ("read",),
    "auth/token/renew-self": ("update",),
    "auth/token/revoke-self": ("update",),
    "sys/capabilities-self": ("update",),
}
"""What every broker needs for its own session (the policy `default` is not given to it)."""

_REASONS: Final = tuple(
    (re.compile(path), reason)
    for path, reason in (
        (r"auth/token/create/[^/]+", "Makes the token of each grant. The role allows it our issuers' policies only."),
        (r"auth/token/revoke-accessor", "Ends the token of a grant; only its accessor is kept, never the token."),
        (r"auth/token/lookup-self", "Tells a session that has ended from a call that is not allowed."),
        (r"auth/token/renew-self", "Keeps the session."),
        (r"auth/token/revoke-self", "Gives the session back when the broker stops."),
        (r"sys/capabilities-self", "Lets `stepgrant doctor` see what is missing."),
        (r"sys/leases/revoke", "Takes a login back, at once; no other leases than those of our issuers."),
        (r"sys/leases/lookup", "Tells a login that is gone from one that cannot be taken back now."),
        (r".+/roles/[^/]+", "Compares the role with what a grant allows, before anything is made."),
        (r".+/revoke", "Puts a certificate that was taken back on Vault's list."),
        (r".+/sign/[^/]+", "Signs the broker's tokens or run heads. The key cannot be read."),
        (r".+/datakey/wrapped/[^/]+", "Makes a wrap key for what rests; it comes out wrapped only."),
        (r".+/decrypt/[^/]+", "Opens the wrap keys in keys_dir, once at each start."),
        (r".+/rewrap/[^/]+", "Brings the wrap keys in keys_dir under a newer version."),
        (r".+/keys/[^/]+", "Reads public keys: to publish them, and to check each signature."),
    )
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One path. `allowed`: parameters with their values (`[]`: any); empty allows all. `required` must be there."""

    path: str
    capabilities: tuple[str, ...]
    allowed: Mapping[str, Sequence[object]] = field(default_factory=dict)
    required: tuple[str, ...] = ()


def broker_policy(rules: Mapping[str, tuple[str, ...]], leases: Sequence[str]) -> str:
    """The policy's text. `rules`: path to capabilities; `leases`: patterns of the leases that it may take back."""
    head = "# The Stepgrant broker's own session. Written by `stepgrant vault setup`; it says what each line is for.\n"
    return head + "".join(_block(_rule(path, rules[path], tuple(sorted(leases)))) for path in sorted(rules))


def _rule(path: str, capabilities: tuple[str, ...], leases: tuple[str, ...]) -> Rule:
    match path:
        case "sys/leases/revoke":
            return Rule(path, capabilities, {"lease_id": leases, "sync": (True,)}, ("lease_id", "sync"))
        case "sys/leases/lookup":
            return Rule(path, capabilities, {"lease_id": leases}, ("lease_id",))
        case _:
            return Rule(path, capabilities)


def _block(rule: Rule) -> str:
    lines = [f'\npath "{rule.path}" {{', f"  # {_reason(rule.path)}", f"  capabilities = {_list(rule.capabilities)}"]
    if rule.allowed:
        lines.append("  allowed_parameters = {")
        lines += [f'    "{name}" = {_list(values)}' for name, values in rule.allowed.items()]
        lines.append("  }")
    if rule.required:
        lines.append(f"  required_parameters = {_list(rule.required)}")
    return "\n".join([*lines, "}", ""])


def _reason(path: str) -> str:
    return next(
        (reason for form, reason in _REASONS if form.fullmatch(path)), "An issuer of the issuers file needs it."
    )


def _list(values: Sequence[object]) -> str:
    return json.dumps(list(values))
