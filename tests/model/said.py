"""What a broker said, or may say, in words that the model and the real one share.

The protocol does not order its refusals: a call that is wrong in two ways may be refused for either. So a refusal is a
set of codes, and the real code must be one of them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refused:
    """Refused with one of these codes of protocol.md §7; none named: the page does not say which."""

    codes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"refused ({'|'.join(sorted(self.codes)) or 'any code'})"


@dataclass(frozen=True)
class Answered:
    """Answered with these members; those that are not named are not compared."""

    members: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return "answered " + ", ".join(f"{name}={value!r}" for name, value in self.members)


Said = Refused | Answered


def refused(*codes: str) -> Refused:
    """A refusal."""
    return Refused(frozenset(codes))


def answered(**members: object) -> Answered:
    """An answer."""
    return Answered(tuple(sorted(members.items())))


def agree(expected: Said, heard: Said) -> bool:
    """Whether the broker said what it may say."""
    if isinstance(expected, Refused) or isinstance(heard, Refused):
        if not (isinstance(expected, Refused) and isinstance(heard, Refused)):
            return False
        return not expected.codes or heard.codes <= expected.codes
    given = dict(heard.members)
    return all(name in given and given[name] == value for name, value in expected.members)
