"""The broker is killed with SIGKILL in the middle of a run, around every kind of commit, and started again on its data.

The SDK repeats its call, or a new start of the agent resumes; nothing is lost and nothing is doubled.
The agent says what it was told as it is told it, so a broker that acknowledged what it then lost is found.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

import pytest

from faults import evidence
from faults.nursery import Nursery, Scene, scene
from faults.processes import ENDED, KILLED, Agent, report

COMMITS: Final = {
    "open": 1, "plan": 2, "read-begin": 3, "read-complete": 4, "note-begin": 5, "note-redeem": 6, "note-complete": 7,
    "charge-begin": 8, "charge-redeem": 9, "charge-complete": 10, "end": 14,
}  # fmt: skip
"""The commits of a run in their order (11 to 13 are those of another step like `charge`)."""
PATIENT: Final[dict[str, Any]] = {"lease_ms": 180_000, "redeem_window_ms": 5000}
"""No heartbeat comes between, which would be a commit too, and no target comes late, on however busy a machine."""
DECISIONS: Final = {"open": 1, "read": 2, "note": 3, "charge": 4}
MINTS: Final = {"read": 1, "note": 2, "charge": 3}
AROUND: Final = ("before_commit", "after_commit")
STORE: Final = ("before_apply", "before_commit", "after_commit", "after_reply")

POINTS: Final = {
    **{f"{place}-of-{call}": f"usecase.{place}@{nth}" for place in AROUND for call, nth in COMMITS.items()},
    **{f"before_policy-of-{call}": f"usecase.before_policy@{nth}" for call, nth in DECISIONS.items()},
    **{f"before_mint-of-{call}": f"usecase.before_mint@{nth}" for call, nth in MINTS.items()},
    **{f"after_mint-of-{call}": f"usecase.after_mint@{nth}" for call, nth in MINTS.items()},
    **{
        f"store-{place}-of-{call}": f"store.{place}@{COMMITS[call]}"
        for place in STORE
        for call in ("charge-begin", "charge-redeem", "charge-complete")
    },
}  # fmt: skip


TARGETS_OWN: Final = ("-redeem", "after_reply-of-charge-begin")
"""Here the broker is gone while the target wants to redeem. It soon refuses, and the agent starts again."""

SLOTS: Final = 2
REACHED_S: Final = 30.0


@dataclass
class Tale:
    """One run with the broker killed once, as it was seen from outside."""

    agent: Agent
    killed: int | None = None
    again: dict[str, object] = field(default_factory=dict)


def live(on: Scene, name: str, failpoint: str) -> Tale:
    tale = Tale(on.agent(name))
    on.broker(f"{failpoint}=kill")
    thread = threading.Thread(target=tale.agent.finish)
    thread.start()
    try:
        tale.killed = on.nursery.expect("ended", patience_s=REACHED_S)["ended"]
        tale.again = on.broker()
    except queue.Empty:
        tale.again = {"failpoint": "not reached"}
    thread.join()
    on.nursery.end()
    return tale


@dataclass
class Stage:
    """A few scenes, and the cases that run on whichever is free."""

    free: queue.Queue[Scene]
    tales: dict[str, Future[tuple[Scene, Tale]]]

    def run(self, name: str) -> tuple[Scene, Tale]:
        scene = self.free.get()
        try:
            return scene, live(scene, name, POINTS[name])
        finally:
            self.free.put(scene)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    chosen = [str(item.callspec.params["name"]) for item in request.session.items if _is_case(item)]
    with ExitStack() as stack:
        made = Stage(queue.Queue(), {})
        for number in range(min(SLOTS, len(chosen))):
            nursery = stack.enter_context(Nursery())
            made.free.put(stack.enter_context(scene(nursery, tmp_path_factory.mktemp(f"broker{number}"), **PATIENT)))
        pool = stack.enter_context(ThreadPoolExecutor(SLOTS))
        made.tales.update((name, pool.submit(made.run, name)) for name in chosen)
        try:
            yield made
        finally:
            pool.shutdown(cancel_futures=True)


def _is_case(item: pytest.Item) -> TypeGuard[pytest.Function]:
    return isinstance(item, pytest.Function) and item.function is test_killed


@pytest.mark.parametrize("name", POINTS)
def test_killed(stage: Stage, name: str) -> None:
    on, tale = stage.tales[name].result()
    agent = tale.agent
    book = on.target.book(agent.run)
    found = evidence.judged(on.data, agent, book)
    if tale.killed != KILLED or "up" not in tale.again:
        found.append(f"the broker was to be killed once and to start again: {tale.killed}, {tale.again}")
    if agent.starts[-1].code != ENDED:
        found.append("the run did not end")
    resumed = [event for event in evidence.of_run(on.data, agent.run).entries if event.type == "run_resumed"]
    if len(resumed) >= len(agent.starts):
        found.append("a repeated call raised the epoch: no other process came")
    if len(agent.starts) > 1 and not name.endswith(TARGETS_OWN):
        found.append("the agent was stopped by an outage that its SDK bridges")
    assert found == [], report(found, agent, book) + f"\nthe broker's log: {on.log}"


def test_the_whole_ledger_holds(stage: Stage) -> None:
    """After all of them, or those that were chosen."""
    folders = {tale.result()[0].data for tale in stage.tales.values()}
    assert [finding for folder in folders for finding in evidence.findings(folder)] == []
