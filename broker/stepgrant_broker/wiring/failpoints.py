"""The seam where tests break a broker: off it does nothing, and only `test_mode` can turn it on.

`STEPGRANT_BROKER_FAILPOINTS` is a list of `point=action` with commas: `kill` (SIGKILL to this process), `raise`,
`sleep:<ms>`; `point@3=kill` acts at the third hit and not before or after.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

_RULE: Final = re.compile(
    r"(?P<point>[a-z_.]+)(?:@(?P<nth>[1-9][0-9]{0,5}))?=(?P<action>kill|raise|sleep:(?P<ms>[0-9]{1,6}))"
)


class FailpointHit(Exception):
    """A test asked for a failure here. No part of the broker expects it."""


class NoFailpoints:
    """Nothing ever happens."""

    def hit(self, point: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at a point; `nth` is `None` for every hit."""

    action: str
    nth: int | None
    sleep_ms: int


class ScriptedFailpoints:
    """Acts as the rules say. Safe to hit from any thread."""

    def __init__(self, rules: dict[str, list[Rule]]) -> None:
        self._rules = rules
        self._hits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def hit(self, point: str) -> None:
        """Act, if a rule of this point is due. Raises `FailpointHit` where the rule says so."""
        rules = self._rules.get(point)
        if rules is None:
            return
        with self._lock:
            self._hits[point] += 1
            count = self._hits[point]
        for rule in rules:
            if rule.nth is None or rule.nth == count:
                _act(point, rule)


def _act(point: str, rule: Rule) -> None:
    match rule.action:
        case "kill":
            # No handler runs and nothing is flushed: this is the crash that the tests are about.
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise FailpointHit(point)
        case _:
            time.sleep(rule.sleep_ms / 1000)


def parse(text: str) -> ScriptedFailpoints:
    """The failpoints that this text describes. Raises `ValueError`."""
    rules: dict[str, list[Rule]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        found = _RULE.fullmatch(item)
        if found is None:
            raise ValueError(f"failpoint {item[:80]!r} is not point=kill, point=raise or point=sleep:<ms>")
        nth = int(found["nth"]) if found["nth"] else None
        rule = Rule(found["action"].partition(":")[0], nth, int(found["ms"] or 0))
        rules.setdefault(found["point"], []).append(rule)
    return ScriptedFailpoints(rules)
