"""Names that were probably meant: looked for beside the event loop, and among so many."""

from __future__ import annotations

import threading
from typing import Self

from stepgrant_broker.usecases.naming import AMONG, NEAR, near


class Watched(str):
    """A name that tells on which threads it was compared: whoever does so asks first how long it is."""

    __slots__ = ("seen",)
    seen: list[int]

    def __new__(cls, name: str, seen: list[int]) -> Self:
        made = super().__new__(cls, name)
        made.seen = seen
        return made

    def __len__(self) -> int:
        self.seen.append(threading.get_ident())
        return super().__len__()


async def test_near_names_are_looked_for_on_a_thread_of_their_own() -> None:
    seen: list[int] = []
    assert await near("agnet", [Watched(name, seen) for name in ("planet", "agent")]) == "; near: agent, planet"
    assert seen
    assert threading.get_ident() not in seen


async def test_they_are_looked_for_among_so_many_however_many_there_are() -> None:
    first = [f"a{number:05}" for number in range(AMONG)]
    assert await near("zzz", [*first[1:], "zzy"]) == "; near: zzy"
    assert await near("zzz", [*first, "zzy"]) == ""
    assert (await near("a00000", first)).count(",") == NEAR - 1
