"""The seam where tests break a broker: off it costs one attribute test, and only `test_mode` can turn it on.

`STEPGRANT_BROKER_FAILPOINTS` is a list of `point=action` with commas; `point@3=kill` acts at the third hit and not
before or after. Several rules of one point act in their order. The actions:

* `kill`: SIGKILL to this process.
* `raise`: an exception that no part of the broker expects.
* `sleep:<ms>`: whoever is here stands still for so long.
* `lost`: everything goes on, and the next answer that would leave is not sent: its connection is cut.

Rules:
* The names are in `POINTS`; another one is refused, for it would never be reached and nobody would notice.
* Each act is one line of JSON on standard error before it happens, so that a test can tell "held" from "not reached".
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

REPLIES: Final = frozenset({"api.before_reply", "api.mid_reply"})
"""Where an answer leaves (`wiring/replies.py`)."""

POINTS: Final = REPLIES | {
    "api.after_authn",
    "api.after_parse",
    "ledger.head",
    "start.recovery",
    "store.after_commit",
    "store.after_entries",
    "store.after_grant",
    "store.after_proof",
    "store.after_reply",
    "store.after_row",
    "store.after_step",
    "store.before_apply",
    "store.before_commit",
    "store.checkpoint",
    "store.mid_batch",
    "usecase.after_commit",
    "usecase.after_intend",
    "usecase.after_lease",
    "usecase.after_mint",
    "usecase.before_commit",
    "usecase.before_intend",
    "usecase.before_mint",
    "usecase.before_policy",
}

_RULE: Final = re.compile(
    r"(?P<point>[a-z_.]+)(?:@(?P<nth>[1-9][0-9]{0,5}))?=(?P<action>kill|raise|lost|sleep:(?P<ms>[0-9]{1,6}))"
)


class FailpointHit(Exception):
    """A test asked for a failure here. No part of the broker expects it."""


class ReplyLost(Exception):
    """The answer that is leaving here is to be lost."""


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
        self._losing = 0

    def hit(self, point: str) -> None:
        """Act, if a rule of this point is due. Raises `FailpointHit` or `ReplyLost` where a rule says so."""
        rules = self._rules.get(point)
        if rules is not None:
            with self._lock:
                self._hits[point] += 1
                count = self._hits[point]
            for rule in rules:
                if rule.nth is None or rule.nth == count:
                    self._act(point, rule, count)
        if point in REPLIES and self._loses():
            raise ReplyLost

    def _act(self, point: str, rule: Rule, count: int) -> None:
        told = {"event": "failpoint", "point": point, "action": rule.action, "hit": count}
        os.write(2, json.dumps(told).encode() + b"\n")
        match rule.action:
            case "kill":
                # No handler runs and nothing is flushed: this is the crash that the tests are about.
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise FailpointHit(point)
            case "lost":
                with self._lock:
                    self._losing += 1
            case _:
                time.sleep(rule.sleep_ms / 1000)

    def _loses(self) -> bool:
        with self._lock:
            losing = self._losing > 0
            self._losing -= losing
        return losing


def parse(text: str) -> ScriptedFailpoints:
    """The failpoints that this text describes. Raises `ValueError`."""
    rules: dict[str, list[Rule]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        found = _RULE.fullmatch(item)
        if found is None:
            raise ValueError(f"failpoint {item[:80]!r} is not point=kill, point=raise, point=lost or point=sleep:<ms>")
        if found["point"] not in POINTS:
            raise ValueError(f"there is no failpoint {found['point'][:80]!r}")
        nth = int(found["nth"]) if found["nth"] else None
        rule = Rule(found["action"].partition(":")[0], nth, int(found["ms"] or 0))
        rules.setdefault(found["point"], []).append(rule)
    return ScriptedFailpoints(rules)
