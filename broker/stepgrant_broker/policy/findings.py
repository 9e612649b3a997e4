"""What is wrong with a policy, each with its place and its mend.

Rules:
* A finding names file and line as an editor wants them, a stable code, and what to do about it.
* A policy with a finding is never activated; the one before stays in force.
* The policy that is in force already decides by the same bytes as before. What a newer check finds in its answers and
  settings (`ADVICE`) is told and does not stop it, so that an upgrade of the broker stops no production. Everything
  else does: what may not run, what engines read differently, and what does not fit this broker's input (a rule over a
  member that an upgrade took away never fires).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stepgrant_broker.domain.errors import SchemaViolation

ADVICE: Final = frozenset({"bad_effect", "bad_reason", "bad_settings", "no_codes", "unknown_setting", "unused_rule"})
"""Codes that follow from the policy's own files (schemas included) and change nothing of what it decides."""
SHOWN: Final = 5
"""Findings in the text of an error; the rest is counted there and whole in `findings`."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One defect: `file` relative to the policy's root, `line` from 1, or 0 where only the file is to blame."""

    file: str
    line: int
    code: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}: {self.message}; {self.fix}"


def grave(findings: Iterable[Finding], *, in_force: bool) -> tuple[Finding, ...]:
    """Those that keep a policy from deciding. `in_force`: whether it decides already."""
    return tuple(one for one in findings if not (in_force and one.code in ADVICE))


class PolicyInvalid(SchemaViolation):
    """This policy cannot be activated; `findings` (never empty, in order of place) say why."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(sorted(findings))
        shown = "\n".join(str(finding) for finding in self.findings[:SHOWN])
        more = len(self.findings) - SHOWN
        super().__init__(f"{shown}\n({more} more)" if more > 0 else shown)
