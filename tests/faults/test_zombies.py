"""Holders that come back after their time, two that come at once, and requests that outlive who sent them.

A zombie is a real agent that SIGSTOP froze with a credential in its hand, beyond its lease. What it asks for when it
wakes goes around the SDK's own memory of being fenced: it is the broker, and the target, that must refuse.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from faults import evidence
from faults.processes import ENDED, KILLED, Agent, Kill, Line, Place, Puppet, Target, report, settings_for
from faults.puppet import CALLS
from stepgrant_broker.testing import TestHost, start

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import Failpoints

LONG_S: Final = 30.0
"""Where only the broker's clock lets a lease lapse, no slow machine can. Where a successor acts, time really passes:
targets keep the system's time."""
SHORT_S: Final = 2.0
PATIENT: Final = "30"


@dataclass
class Stage:
    """A broker that sweeps only when asked, a target, and one workload key for all its agents."""

    host: TestHost
    target: Target
    folder: Path
    key: Path
    stack: ExitStack

    def lapse(self) -> None:
        """The lease of whoever holds a run is over."""
        self.host.advance(LONG_S)

    def puppet(self) -> Puppet:
        return self.stack.enter_context(Puppet(self.host.url, self.key, self.target.url))

    def agent(self, key: str) -> Agent:
        return Agent(key, self.host.url, self.key, self.target.url)

    def hashes(self, run: str) -> list[str]:
        return [event.hash for event in self.host.entries(run)]


@contextmanager
def staged(
    folder: Path, *, lease_s: float = LONG_S, redeem_window_ms: int = 1000, failpoints: Failpoints | None = None
) -> Iterator[Stage]:
    place = Place.free()
    given = {"leeway_ms": 200, "sweep_ms": 600_000, "redeem_window_ms": redeem_window_ms, "lease_s": lease_s}
    with ExitStack() as stack:
        started = start(folder / "broker", settings=settings_for(place.url), failpoints=failpoints, **given)
        host = stack.enter_context(started)
        key = host.enroll("target", audiences=[place.url])
        target = stack.enter_context(place.target(host.url, key, folder / "book"))
        yield Stage(host, target, folder / "broker", host.enroll("worker", agents=["worker"]), stack)


class SlowCommits:
    """Whoever comes at once loads before the first of them has committed."""

    def hit(self, point: str) -> None:
        if point == "store.before_apply":
            time.sleep(0.03)


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(tmp_path, **getattr(request, "param", {})) as made:
        yield made


short_lease = pytest.mark.parametrize("stage", [{"lease_s": SHORT_S}], indirect=True, ids=["short-lease"])
slow_commits = pytest.mark.parametrize("stage", [{"failpoints": SlowCommits()}], indirect=True, ids=["slow-commits"])


def frozen(stage: Stage) -> tuple[Puppet, str]:
    """An agent that stands still with a credential in its hand, and its run."""
    zombie = stage.puppet()
    run = str(zombie.do("open job")["run"])
    assert zombie.do("hold pay") == {"holding": "pay"}
    zombie.freeze()
    return zombie, run


def refusals(zombie: Puppet) -> dict[str, Line]:
    """What it gets for everything that a holder may ask for."""
    return {verb: zombie.do(f"ask {verb}") for verb in CALLS}


def all_of(code: str) -> dict[str, Line]:
    return {verb: {"refused": code} for verb in CALLS}


@pytest.mark.parametrize("swept", [False, True], ids=["lapsed", "lapsed-and-parked"])
def test_a_lapsed_lease_fences_its_holder_though_nobody_came(stage: Stage, swept: bool) -> None:  # noqa: FBT001
    zombie, run = frozen(stage)
    stage.lapse()
    if swept:
        assert stage.host.sweep_now() == 1
    before = stage.hashes(run)
    zombie.thaw()

    assert refusals(zombie) == all_of("stale_epoch")
    assert zombie.do("present")["code"] == "grant_revoked"
    assert zombie.do("return") == {"refused": "stale_epoch"}
    assert zombie.do("leave") == {"refused": "stale_epoch"}
    assert stage.hashes(run) == before
    assert [line for line in stage.target.book() if "did" in line] == []


@short_lease
def test_a_successor_holds_what_a_zombie_held(stage: Stage) -> None:
    """Zombie and successor are of one workload with one key file."""
    zombie, run = frozen(stage)
    heir = stage.puppet()
    assert heir.do(f"open job {PATIENT}") == {"run": run, "epoch": 2}
    assert heir.do("hold pay") == {"holding": "pay"}
    before = stage.hashes(run)
    zombie.thaw()

    assert refusals(zombie) == all_of("stale_epoch")
    assert zombie.do("present")["code"] == "grant_revoked"
    assert zombie.do("return") == {"refused": "stale_epoch"}
    assert zombie.do("leave") == {"refused": "stale_epoch"}
    assert stage.hashes(run) == before

    assert heir.do("present")["status"] == 200
    assert heir.do("return") == {"returned": {"order": "0"}}
    assert heir.do("leave") == {"left": True}
    assert [(line["step"], line["epoch"]) for line in stage.target.book() if "did" in line] == [("pay", 2)]
    assert evidence.findings(stage.folder) == []


@short_lease
def test_a_zombie_of_a_run_that_is_over(stage: Stage) -> None:
    zombie, run = frozen(stage)
    heir = stage.puppet()
    heir.do(f"open job {PATIENT}")
    heir.do("hold pay")
    assert heir.do("present")["status"] == 200
    heir.do("return")
    assert heir.do("leave") == {"left": True}
    before = stage.hashes(run)
    zombie.thaw()

    assert refusals(zombie) == all_of("run_ended")
    assert zombie.do("present")["code"] == "stale_epoch"
    assert zombie.do("return") == {"refused": "run_ended"}
    assert stage.hashes(run) == before
    assert [(line["step"], line["epoch"]) for line in stage.target.book() if "did" in line] == [("pay", 2)]


ROUNDS: Final = 12


def one_holder(both: tuple[Puppet, Puppet], key: str) -> tuple[Puppet, int]:
    """Both ask at once; exactly one holds the run, under this epoch."""
    for puppet in both:
        puppet.tell(f"open {key}")
    answers = [puppet.answer() for puppet in both]
    holders = [number for number, answer in enumerate(answers) if "epoch" in answer]
    assert len(holders) == 1, answers
    assert answers[1 - holders[0]] == {"refused": "lease_held"}, answers
    return both[holders[0]], int(answers[holders[0]]["epoch"])


@slow_commits
def test_two_that_resume_one_run_at_once(stage: Stage) -> None:
    both = stage.puppet(), stage.puppet()
    epochs = []
    for _ in range(ROUNDS):
        holder, epoch = one_holder(both, "race")
        epochs.append(epoch)
        assert holder.do("park") == {"parked": True}
    (run,) = stage.host.runs()
    taken = [event.epoch for event in stage.host.entries(run.id) if event.type in {"run_opened", "run_resumed"}]
    assert epochs == taken == list(range(1, ROUNDS + 1))
    assert evidence.findings(stage.folder) == []


@slow_commits
def test_two_that_open_one_new_run_at_once(stage: Stage) -> None:
    both = stage.puppet(), stage.puppet()
    for number in range(ROUNDS):
        holder, epoch = one_holder(both, f"fresh-{number}")
        assert epoch == 1
        assert holder.do("leave") == {"left": True}
    assert sorted(run.key for run in stage.host.runs()) == sorted(f"fresh-{number}" for number in range(ROUNDS))
    assert {run.epoch for run in stage.host.runs()} == {1}
    assert evidence.findings(stage.folder) == []


@short_lease
def test_two_starts_of_an_agent_that_died_in_doubt(stage: Stage) -> None:
    """Two supervisors start it again at once: one does what is left, the other one nothing."""
    agent, other = stage.agent("twice"), stage.agent("twice")
    assert agent.live(Kill(failpoint="sdk.after_effect:kill:3")).code == KILLED
    rival = threading.Thread(target=other.live)
    rival.start()
    agent.live()
    rival.join()
    book = stage.target.book(agent.run)
    left, found = evidence.of_run(stage.folder, agent.run), evidence.judged(stage.folder, agent, book)
    assert found == [], report(found, agent, book) + f"\nthe other one: {other.story()}"
    assert sorted([agent.starts[-1].code, other.starts[-1].code]) == [ENDED, 75], other.story()
    assert [event.type for event in left.entries].count("run_resumed") == 1


def test_a_request_that_outlives_who_sent_it(tmp_path: Path) -> None:
    """The target redeemed, the agent died, and the target acts at the last moment at which it may.

    The successor's hook has looked long before, and seen nothing. That look does not count; the card is charged once.
    """
    with staged(tmp_path, lease_s=0.6, redeem_window_ms=6000) as stage:
        agent = stage.agent("late")
        assert agent.live(Kill(die="charge@late")).code == KILLED
        assert agent.finish().code == ENDED, agent.story()
        book = stage.target.book(agent.run)
        left, found = evidence.of_run(stage.folder, agent.run), evidence.judged(stage.folder, agent, book)
        assert found == [], report(found, agent, book)
        looks = [
            event.step for event in left.entries if event.type == "step_completed" and "reconcile" in str(event.step)
        ]
        assert looks[:2] == ["charge~reconcile~1", "charge~reconcile~2"]
        assert [line["epoch"] for line in book if "did" in line and line["step"] == "charge"] == [1]
