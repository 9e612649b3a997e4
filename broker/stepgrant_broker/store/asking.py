"""Plans: what is read, apart from how a driver reads it.

A plan is a generator. It yields rounds of questions that need nothing of each other's answers, and is sent their rows;
what it returns is the result. SQLite asks one question after the other; PostgreSQL sends a round in one round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from stepgrant_broker.store.statements import Text

if TYPE_CHECKING:
    from stepgrant_broker.store.rows import Codec

T = TypeVar("T")
Found: TypeAlias = Sequence[Sequence[Any]]
"""The rows of one answer."""


class Ask(NamedTuple):
    """One question with its binds in their places."""

    text: Text
    places: tuple[Any, ...]


Plan: TypeAlias = Generator[Sequence[Ask], Sequence[Found], T]
Look: TypeAlias = Callable[[], Plan[T]]
"""Makes a plan; a driver may begin it anew."""


def ask(text: Text, /, **binds: object) -> Ask:
    """A question with its binds by name."""
    return Ask(text, text.places(binds))


def one(codec: Codec[T], question: Ask) -> Plan[T | None]:
    """The value of the first row, or `None`."""
    (found,) = yield [question]
    return codec.decode(found[0]) if found else None


def every(codec: Codec[T], question: Ask) -> Plan[tuple[T, ...]]:
    """The values of all rows."""
    (found,) = yield [question]
    return tuple([codec.decode(row) for row in found])
