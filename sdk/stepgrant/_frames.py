"""Step keys: from a given id or from the order of calls, in one frame (a run, or the inside of one step).

Rules:
* An ordinal (`<tool>-<n>`) only means the same after a crash if calls come in the same order, so a call without an id
  is refused while any other call of its frame is under way, and the other way round.
* An ordinal is used up only by an outcome that a resumed agent would get again. Otherwise the next call is the same
  step: a retry after `NotExecuted` must not become a second step that is done in addition.
* `~` is between parent and child, so an id with it, like any other that is outside the alphabet, is hashed.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from stepgrant._errors import ConfigurationError, OrdinalUnderConcurrency
from stepgrant.canonical import b64u

if TYPE_CHECKING:
    from stepgrant._session import Session

IdSource = Literal["explicit", "ordinal", "call_id"]
GivenId = Literal["explicit", "call_id"]
"""`explicit`: the author says it stays the same. `call_id`: a framework or model made it, and may make another one."""
MAX_KEY: Final = 180
"""20 less than the broker's limit: a reconcile hook's step is `<key>~reconcile~<n>`."""
_PART: Final = re.compile(r"[A-Za-z0-9._:-]+")
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._:-]")


def key_part(text: str) -> str:
    """An id as one part of a step key: itself, or its hash where it does not fit the alphabet."""
    if len(text) <= MAX_KEY and _PART.fullmatch(text):
        return text
    return "h-" + b64u(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())


def child_key(parent: str | None, part: str) -> str:
    """`parent~part`, with as much of it hashed as its length needs."""
    if parent is None:
        return part
    key = f"{parent}~{part}"
    if len(key) > MAX_KEY:
        hashed = "h-" + b64u(hashlib.sha256(part.encode()).digest())
        key = f"{parent}~{hashed}"
    return key if len(key) <= MAX_KEY else "h-" + b64u(hashlib.sha256(key.encode()).digest())


@dataclass(slots=True)
class Place:
    """One call's place in its frame. `settled`: its outcome is one that a resumed agent would get again."""

    key: str
    source: IdSource
    settled: bool = False


class Frame:
    """Where calls get their keys. Thread-safe."""

    __slots__ = ("_counts", "_in_flight", "_lock", "_raised", "parent", "session")

    def __init__(self, session: Session, parent: str | None = None) -> None:
        self.session: Final = session
        self.parent: Final = parent
        self._raised: list[BaseException] = []
        self._counts: dict[str, int] = {}
        self._in_flight: dict[str, IdSource] = {}
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a step of this frame is under way."""
        return bool(self._in_flight)

    @contextmanager
    def call(self, name: str, step_id: str | None, source: GivenId = "explicit") -> Iterator[Place]:
        """The place of one call, for as long as it is under way. `source`: where its `step_id` comes from.

        Raises:
            OrdinalUnderConcurrency: calls side by side, and one of them has no id.
            ConfigurationError: the same id twice side by side.
        """
        with self._lock:
            place, base = self._enter(name, step_id, source)
        try:
            yield place
        finally:
            with self._lock:
                del self._in_flight[place.key]
                if base is not None and not place.settled:
                    self._counts[base] -= 1

    def note_raised(self, error: BaseException) -> None:
        """A step of this frame raised: what it says of itself (`NotExecuted`) says nothing of the step around it."""
        if self.parent is not None:
            self._raised.append(error)

    def raised_inside(self, error: BaseException) -> bool:
        """Whether a step of this frame raised it."""
        return any(error is one for one in self._raised)

    def _enter(self, name: str, step_id: str | None, source: GivenId) -> tuple[Place, str | None]:
        if self._in_flight and (step_id is None or "ordinal" in self._in_flight.values()):
            raise OrdinalUnderConcurrency(
                f"{name} was called while {', '.join(sorted(self._in_flight))} is under way; calls side by side have "
                "no order that survives a crash: give each a step id (step_id= or .with_id(...))"
            )
        if step_id is None:
            base = _FOREIGN.sub("_", name)[: MAX_KEY // 2]
            self._counts[base] = count = self._counts.get(base, 0) + 1
            place = Place(child_key(self.parent, f"{base}-{count}"), "ordinal")
            self._in_flight[place.key] = place.source
            return place, base
        place = Place(child_key(self.parent, key_part(step_id)), source)
        if place.key in self._in_flight:
            raise ConfigurationError(f"step {place.key!r} is under way already; two calls need two ids")
        self._in_flight[place.key] = place.source
        return place, None
