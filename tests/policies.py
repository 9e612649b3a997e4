"""Small policies, and ways to build bundles of them, for tests of everything that reads or evaluates policy."""

from collections.abc import Mapping
from typing import Any

from stepgrant import canonical
from stepgrant_broker.policy.bundle import Bundle, from_files
from stepgrant_broker.policy.probes import sample

HEAD = 'package stepgrant\n\ndefault decision := {"effect": "deny", "reasons": ["no_rule_matched"]}\n\n'
ALLOW = HEAD + 'decision := {"effect": "allow", "reasons": ["listed"]} if input.action.tool == "probe.read"\n'
SLOW = HEAD + (
    "decision := allowed if {\n"
    '\tinput.action.tool == "slow"\n'
    "\tn := count([1 | some a in xs; some b in xs; some c in xs; a + b + c == -1])\n"
    "\tn == 0\n"
    "}\n\n"
    "decision := allowed if {\n"
    '\tinput.action.tool == "probe.read"\n'
    "}\n\n"
    "xs := input.action.args.xs\n\n"
    'allowed := {"effect": "allow", "reasons": ["listed"]}\n'
)
"""Cubic in the length of `action.args.xs` when the tool is `slow`; quick otherwise."""


def one(text: str, **more: str) -> Bundle:
    """A bundle of one module, and others by path with `/` written `__`."""
    return from_files(
        {
            "stepgrant/main.rego": text,
            **{path.replace("__", "/").replace("/rego", ".rego"): text for path, text in more.items()},
        }
    )


def call(tool: str = "probe.read", **action: Any) -> bytes:  # noqa: ANN401  (JSON)
    """A complete input for a call of this tool."""
    return canonical.dumps(sample(action={"tool": tool, **action}))


def slow(length: int) -> bytes:
    """An input on which `SLOW` takes `length` cubed steps (about 0.3 s for 100)."""
    return call("slow", args={"xs": list(range(length))})


def changed(bundle: Bundle, files: Mapping[str, str]) -> Bundle:
    """The bundle with these evaluated files put in, or in place of those it has."""
    return from_files({**bundle.files, **files})
