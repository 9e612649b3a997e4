"""Numbers in a policy must be written the one way in which every engine means the same by them.

Rules:
* OPA keeps a number's text and calculates with more digits; the embedded engine makes a double of it. For OPA
  0.30000000000000001 is more than 0.3, and `json.marshal(2e3)` is `2e3`. The inputs of decisions are canonical JSON,
  where each double has one text, so a policy's numbers must have it too: then comparing them is exact everywhere.
* What engines calculate from fractions still differs; `stepgrant.units` of the starter policy adds without fractions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from stepgrant import canonical
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.findings import Finding

_TOKENS: Final = re.compile(
    r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*|[A-Za-z_]\w*|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\n', re.DOTALL
)


def number_findings(bundle: Bundle) -> Iterator[Finding]:
    """Each number of rules and data that is not written canonically."""
    for path, text in bundle.files.items():
        line = 1
        for token in _TOKENS.finditer(text):
            number = token["number"]
            if number is not None and (wanted := _canonical(number)) != number:
                message = f"engines read {number} differently"
                fix = f"write {wanted}" if wanted else "stay within 2^53-1"
                yield Finding(path, line, "number_form", message, fix)
            line += token[0].count("\n")


def _canonical(number: str) -> str:
    """The number's one text, or nothing where there is none."""
    try:
        return canonical.dumps(canonical.loads(number.encode())).decode()
    except canonical.CanonicalError:
        return ""
