"""What the demo says is what it checked: a line is printed only as the outcome of a check.

Rules: a check is a claim in plain words, whether it holds, and the evidence that was looked at. A claim that does not
hold is told like one that does, and the demo then ends with exit code 1. `Broken` ends the story where going on would
say nothing: something did not start, or an event did not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


class Broken(Exception):
    """The story cannot go on. The message says what was waited for and what was seen instead."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What looking at the evidence gave."""

    holds: bool
    evidence: str


@dataclass(frozen=True, slots=True)
class Check:
    """One claim of one chapter, and what was found."""

    chapter: str
    claim: str
    holds: bool
    evidence: str
    at: float
    """Seconds after the first thing that the demo did."""


@dataclass(slots=True)
class Checks:
    """All checks of one demo, in order. `tell` is called with each as it is made."""

    tell: Callable[[Check], None]
    made: list[Check] = field(default_factory=list)
    chapter: str = ""
    began: float = field(default_factory=time.monotonic)

    def check(self, claim: str, holds: bool | Finding, evidence: object = "") -> bool:
        """Count and tell one claim."""
        finding = holds if isinstance(holds, Finding) else Finding(holds, str(evidence))
        made = Check(self.chapter, claim, finding.holds, finding.evidence, self.seconds)
        self.made.append(made)
        self.tell(made)
        return made.holds

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    @property
    def failed(self) -> list[Check]:
        """The claims that did not hold."""
        return [made for made in self.made if not made.holds]

    @property
    def all_hold(self) -> bool:
        """True when at least one claim was checked and none failed: an empty story proves nothing."""
        return bool(self.made) and not self.failed
