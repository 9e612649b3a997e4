"""An agent is killed with SIGKILL at every boundary of every kind of step, and started again, until its run is done.

The broker is real, in a thread of this process, and serves all cases; agents and the target are processes. Cases run
a few at a time in the background, for what they mostly do is wait for leases: each test waits for its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard, cast

import pytest

from faults import evidence
from faults.processes import ENDED, KILLED, Agent, Kill, Place, Target, report, settings_for
from stepgrant_broker.testing import TestHost, start

ABREAST: Final = 4
LEASE_S: Final = 1.5
QUICK: Final = {"redeem_window_ms": 1000, "leeway_ms": 200}
"""A credential that was used keeps its successor waiting for little more than a second."""

STEPS: Final = ("read", "note", "charge", "send")
PLACES: Final = ("before_begin", "after_begin", "before_effect", "after_effect", "before_complete", "after_complete")


@dataclass(frozen=True)
class Case:
    """Where the agent dies, start by start; then it is left alone."""

    name: str
    kills: tuple[Kill, ...]
    face: str = "blocking"


def at(place: str, nth: int = 1) -> Kill:
    return Kill(failpoint=f"sdk.{place}:kill:{nth}")


def by_target(where: str) -> Kill:
    return Kill(die=where)


LEFT_IN_DOUBT: Final = at("after_effect", 3)
"""The card was charged, and nobody but the target knows. On resume the third call of `begin` says so, and the hook's
look is the first tool that runs."""

CASES: Final = (
    *(Case(f"open-{place}", (at(place),)) for place in ("before_open", "after_open")),
    Case("plan", (by_target("plan"),)),
    *(Case(f"{step}-{place}", (at(place, nth),)) for nth, step in enumerate(STEPS, 1) for place in PLACES),
    *(Case(f"asyncio-charge-{place}", (at(place, 3),), "asyncio") for place in ("after_begin", "after_effect")),
    *(Case(f"note-{when}", (by_target(f"note@{when}"),)) for when in ("redeemed", "done")),
    *(Case(f"charge-{when}", (by_target(f"charge@{when}"),)) for when in ("redeemed", "done")),
    *(Case(f"resume-{place}", (LEFT_IN_DOUBT, at(place))) for place in ("before_open", "after_open")),
    Case("doubt-told", (LEFT_IN_DOUBT, at("after_begin", 3))),
    *(
        Case(f"hook-{place}", (LEFT_IN_DOUBT, at(place, nth)))
        for place, nth in (("after_begin", 4), ("before_effect", 1), ("after_effect", 1), ("after_complete", 1))
    ),
    Case("reconciled-before_begin", (LEFT_IN_DOUBT, at("before_begin", 5))),
    Case("thrice", (at("after_begin", 3), at("after_begin", 3), at("after_effect"))),
)  # fmt: skip


@dataclass
class Stage:
    """One broker and one target, and the cases that run on it."""

    host: TestHost
    target: Target
    folder: Path
    tales: dict[str, Future[Agent]]

    def live(self, case: Case) -> Agent:
        key = self.host.enroll(case.name, agents=["worker"])
        agent = Agent(case.name, self.host.url, key, self.target.url, case.face)
        for kill in case.kills:
            agent.live(kill)
        agent.finish()
        return agent


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("agents")
    place = Place.free()
    chosen = [cast("Case", item.callspec.params["case"]) for item in request.session.items if _is_case(item)]
    with (
        start(folder / "broker", settings=settings_for(place.url), lease_s=LEASE_S, **QUICK) as host,
        place.target(host.url, host.enroll("target", audiences=[place.url]), folder / "book") as target,
        ThreadPoolExecutor(ABREAST) as pool,
    ):
        made = Stage(host, target, folder / "broker", {})
        made.tales.update((case.name, pool.submit(made.live, case)) for case in chosen)
        try:
            yield made
        finally:
            pool.shutdown(cancel_futures=True)


def _is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
    return isinstance(item, pytest.Function) and item.function is test_killed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed(stage: Stage, case: Case) -> None:
    agent = stage.tales[case.name].result()
    codes = [one.code for one in agent.starts]
    book = stage.target.book(agent.run)
    found = evidence.judged(stage.folder, agent, book)
    if codes[: len(case.kills)] != [KILLED] * len(case.kills) or codes[-1] != ENDED:
        found.append(f"it was to be killed {len(case.kills)} times and then to end: {codes}")
    assert found == [], report(found, agent, book)


def test_the_whole_ledger_holds(stage: Stage) -> None:
    """After all of them, or those that were chosen."""
    for tale in stage.tales.values():
        tale.result()
    assert evidence.findings(stage.folder) == []
