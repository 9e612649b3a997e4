"""When the store was put back to an earlier state: what was seen of it outside, and the log's name from then on.

Rules:
* A log that signed heads of a part that is gone cannot go on under its name: it would sign a second past. After a
  restore it is called `<origin>/r<n>`; its older heads stay what they were, up to the size that was restored.
* `n` is above every one that was ever seen, in the store or outside: the same backup may be put back twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from stepgrant_broker.domain.errors import Conflict, StoreUnavailable

_RESTORED: Final = re.compile(r"(?P<base>.+)/r(?P<n>[1-9][0-9]{0,5})", re.DOTALL)


class StoreRolledBack(StoreUnavailable):
    """The store is behind what was seen of it outside, or has another past. No broker starts over it."""

    code = "store_rolled_back"


class StoreNotBehind(Conflict):
    """Nothing is to be restored: the store has all that was seen of it outside."""

    code = "store_not_behind"


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A tree head that somebody outside the store knows. A witness tells its size alone: its `root` is then None."""

    origin: str
    size: int
    root: bytes | None
    where: str


def base_of(origin: str) -> str:
    """The name that the log had before its first restore."""
    found = _RESTORED.fullmatch(origin)
    return origin if found is None else found["base"]


def times_restored(origin: str) -> int:
    """The `n` of a name, 0 for one without."""
    found = _RESTORED.fullmatch(origin)
    return 0 if found is None else int(found["n"])


def follows(origin: str, known: str) -> bool:
    """Whether this is a name that the log with the other name got by a later restore."""
    return base_of(origin) == base_of(known) and times_restored(origin) > times_restored(known)


def name_after(*origins: str) -> str:
    """The name after another restore; all these are names of this one log."""
    return f"{base_of(origins[0])}/r{max(map(times_restored, origins)) + 1}"
