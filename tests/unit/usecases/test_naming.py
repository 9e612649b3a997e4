"""Names that were probably meant: looked for beside the event loop, and among so many."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Self

from fakes.hand import Hand
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.usecases.naming import AMONG, NEAR, is_known, near


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


class Unlisted:
    """Reads that list no runs: a list filtered by agent goes through all runs of the tenant, if none is of it."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever is read
        assert name not in {"runs", "standings"}
        return getattr(self._reads, name)


async def test_whether_an_agent_is_known_is_found_without_going_through_runs(broker: Hand) -> None:
    await broker.open("old", workload=replace(broker.workload, agents=("bygone",)), agent="bygone")
    ports = replace(broker.ports, reads=Unlisted(broker.ports.reads))
    known = [await is_known(ports, "acme", "agent", name) for name in ("bygone", "agent", "nobody")]
    assert known == [True, True, False]
