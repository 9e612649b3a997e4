"""Named places where a test can make this process fail; off, a hit is one comparison.

Rules:
* A test installs a callable, or a test of another process sets `STEPGRANT_TEST=1` together with
  `STEPGRANT_TEST_FAILPOINT=<name>:kill[:n]` (SIGKILL at that place, the first or n-th time that it is reached). One
  variable alone does nothing, so that no stray setting can kill an agent.
* Names: sdk.{before,after}_{open,begin,effect,complete}. The effect's places enclose the tool; the others one call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

NAMES: Final = frozenset(
    f"sdk.{when}_{what}" for when in ("before", "after") for what in ("open", "begin", "effect", "complete")
)


def _from_environment() -> Callable[[str], None] | None:
    text = os.environ.get("STEPGRANT_TEST_FAILPOINT", "")
    if os.environ.get("STEPGRANT_TEST") != "1" or not text:
        return None
    name, _, rest = text.partition(":")
    action, _, nth = rest.partition(":")
    if name not in NAMES or action != "kill" or not (nth or "1").isdecimal():
        raise ValueError(f"STEPGRANT_TEST_FAILPOINT: {text!r} is not <name>:kill[:n] with a known name")
    times = count(1)

    def kill(reached: str) -> None:
        if reached == name and next(times) == int(nth or "1"):
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


_hook: Callable[[str], None] | None = _from_environment()


def hit(name: str) -> None:
    """Tell the installed callable, if there is one, that this place is reached. Raises whatever it raises."""
    if _hook is not None:
        _hook(name)


@contextmanager
def installed(hook: Callable[[str], None]) -> Iterator[None]:
    """Install a callable for the length of a block; it gets the name of each place as it is reached."""
    global _hook  # noqa: PLW0603  # one seam per process, like the environment that sets it
    before, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = before
