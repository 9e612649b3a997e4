"""What a look at one thing came to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class State(StrEnum):
    """`warn`: it works, but not for long or not as safely as it could. `unseen`: something else is in the way."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was looked at. `fix` says what to do; it is empty only where nothing is to be done."""

    area: str
    name: str
    state: State
    what: str
    fix: str = ""


Look: TypeAlias = Callable[[], AsyncIterator[Found]]


class Area:
    """Makes the findings of one area."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ok(self, name: str, what: str) -> Found:
        """All is well."""
        return Found(self.name, name, State.OK, what)

    def warn(self, name: str, what: str, fix: str) -> Found:
        """It works, but should be seen to."""
        return Found(self.name, name, State.WARN, what, fix)

    def fail(self, name: str, what: str, fix: str) -> Found:
        """It does not work, or is not safe."""
        return Found(self.name, name, State.FAIL, what, fix)

    def unseen(self, name: str, what: str, fix: str = "mend what is in its way, then look again") -> Found:
        """It could not be looked at."""
        return Found(self.name, name, State.UNSEEN, what, fix)
