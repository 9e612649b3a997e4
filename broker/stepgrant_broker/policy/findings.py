"""What is wrong with a policy, each with its place and its mend.

Rules:
* A finding names file and line as an editor wants them, a stable code, and what to do about it.
* A policy with a finding is never activated; the one before stays in force.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stepgrant_broker.domain.errors import SchemaViolation

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


class PolicyInvalid(SchemaViolation):
    """This policy cannot be activated; `findings` (never empty, in order of place) say why."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(sorted(findings))
        shown = "\n".join(str(finding) for finding in self.findings[:SHOWN])
        more = len(self.findings) - SHOWN
        super().__init__(f"{shown}\n({more} more)" if more > 0 else shown)
