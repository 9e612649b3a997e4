"""Named places where a test can make this process fail; off, a place costs one attribute test (`on`).

Rules:
* A test installs a callable, or a test of another process sets `STEPGRANT_TEST=1` together with
  `STEPGRANT_TEST_FAILPOINT=<name>:<action>[:n]` (the first, or the n-th time that it is reached). One variable alone
  does nothing, so that no stray setting can kill an agent.
* Actions: `kill` (SIGKILL), `raise`, `sleep:<ms>`, and `lost`: the next answer of the broker, or the one that has just
  come, is thrown away as if its connection had broken.
* Names: sdk.{before,after}_{open,begin,effect,complete}, of which the effect's places enclose the tool and the others
  one call; sdk.{before,after}_send around each exchange of a call with the broker; sdk.on_resume, once an older
  epoch's run is held.
* What the environment asks for is told in one line on standard error before it happens.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

NAMES: Final = frozenset(
    f"sdk.{when}_{what}" for when in ("before", "after") for what in ("open", "begin", "effect", "complete", "send")
) | {"sdk.on_resume"}
_RULE: Final = re.compile(
    r"(?P<name>sdk\.[a-z_]+):(?P<action>kill|raise|lost|sleep:(?P<ms>[0-9]{1,6}))(?::(?P<nth>[1-9][0-9]{0,5}))?"
)


class FailpointRaised(Exception):
    """A test asked for a failure here. No part of the SDK expects it."""


class _Ordered:
    """Does what the environment asks for, once."""

    def __init__(self, rule: re.Match[str]) -> None:
        self._name = rule["name"]
        self._action = rule["action"].partition(":")[0]
        self._sleep_s = int(rule["ms"] or 0) / 1000
        self._nth = int(rule["nth"] or 1)
        self._times = count(1)
        self._losing = False

    def __call__(self, reached: str) -> None:
        if reached == self._name and next(self._times) == self._nth:
            self._act()
        if reached == "sdk.after_send" and self._losing:
            self._losing = False
            raise ReplyLost

    def _act(self) -> None:
        told = {"event": "failpoint", "point": self._name, "action": self._action, "hit": self._nth}
        os.write(2, json.dumps(told).encode() + b"\n")
        match self._action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise FailpointRaised(self._name)
            case "lost":
                self._losing = True
            case _:
                time.sleep(self._sleep_s)


class ReplyLost(Exception):
    """Raised by a hook at `sdk.after_send`: whoever sent there never gets this answer."""


def _from_environment() -> Callable[[str], None] | None:
    text = os.environ.get("STEPGRANT_TEST_FAILPOINT", "")
    if os.environ.get("STEPGRANT_TEST") != "1" or not text:
        return None
    rule = _RULE.fullmatch(text)
    if rule is None or rule["name"] not in NAMES:
        raise ValueError(
            f"STEPGRANT_TEST_FAILPOINT: {text!r} is not <name>:kill[:n] (or raise, lost, sleep:<ms>) with a known name"
        )
    return _Ordered(rule)


on: Callable[[str], None] | None = _from_environment()
"""The installed callable. Places test it before they call `hit`."""


def hit(name: str) -> None:
    """Tell the installed callable, if there is one, that this place is reached. Raises whatever it raises."""
    if on is not None:
        on(name)


def lost() -> bool:
    """The place after an exchange is reached; whether its answer is to be thrown away. Raises as `hit`."""
    try:
        hit("sdk.after_send")
    except ReplyLost:
        return True
    return False


@contextmanager
def installed(hook: Callable[[str], None]) -> Iterator[None]:
    """Install a callable for the length of a block; it gets the name of each place as it is reached."""
    global on  # noqa: PLW0603  # one seam per process, like the environment that sets it
    before, on = on, hook
    try:
        yield
    finally:
        on = before
