"""`stepgrant work` against a real broker: several side by side, killed, stopped, asked, and given poison."""

from __future__ import annotations

import functools
import json
import queue
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import stepgrant
from contract.sdk.working import QUICK, Works, until
from processes import started
from processes import stepgrant as stepgrant_command
from shop import Shop
from stepgrant import errors
from stepgrant._worker import Event, Settings, Worker
from stepgrant.testing import TestBroker

pytestmark = pytest.mark.timeout(300)
short = pytest.mark.parametrize("broker", [QUICK], indirect=True, ids=["short"])
LEASE_S = float(QUICK["lease_s"])


@pytest.fixture
def works(tmp_path: Path, broker: TestBroker, shop: Shop) -> Works:
    broker.allow(
        "agent", shop.tools(charge="once", mail="once", **{"charge.reconcile": "read", "mail.reconcile": "read"})
    )
    return Works(tmp_path, broker, shop)


def start(works: Works, key: str, **order: str | list[str]) -> str:
    """Have it stored for a worker."""

    @stepgrant.agent("agent", url=works.broker.url, workload_key=works.broker.key_of("agent"))
    def bill(_: object) -> None: ...

    return bill.start({"order": key, **order}, run_key=key).run


@pytest.mark.parametrize("broker", [{"lease_s": 20, "sweep_ms": 50}], indirect=True, ids=["long lease"])
def test_two_workers_share_twenty_runs_and_each_is_done_once(works: Works) -> None:
    keys = [f"o{number}" for number in range(20)]
    for key in keys:
        start(works, key)
    with works.worker("-c", "3") as one, works.worker("-c", "3") as two:
        for key in keys:
            until(functools.partial(works.is_completed, key), key)
        taken = [[line["run_key"] for line in worker.said("taken")] for worker in (one, two)]
        for worker in (one, two):
            worker.stop()
            assert worker.running.ended() == 0
    assert sorted([*taken[0], *taken[1]]) == sorted(keys)
    assert all(taken)
    assert sorted(act[1]["order"] for act in works.shop.acts if act[0] == "charge") == sorted(keys)
    assert works.shop.done("mail") == 20
    assert {works.run(key).epoch for key in keys} == {2}
    assert works.broker.host.ledger_findings() == []  # type: ignore[attr-defined]


class LateNews(queue.SimpleQueue[None]):
    """Whoever puts something into it stays in it for a while, as on a busy machine."""

    def put(self, item: None, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - its own
        super().put(item)
        time.sleep(0.3)


def test_no_thread_of_a_run_is_left_when_a_worker_has_ended(works: Works) -> None:
    """Python was taken down around one that was in its last lines, and died of it (seen once, under load)."""

    @stepgrant.agent("agent", url=works.broker.url, workload_key=works.broker.key_of("agent"))
    def idle(_: object) -> None: ...

    def tell(event: Event) -> None:
        if event.kind == "completed":
            worker.stop()

    worker = Worker([idle], Settings(poll=0.05), tell)
    worker._woken = LateNews()
    idle.start({}, run_key="only")
    assert worker.work()
    assert works.is_completed("only")
    assert [one.name for one in threading.enumerate() if one.name.startswith("stepgrant-work-")] == []


@short
def test_a_worker_killed_in_the_middle_of_a_step_is_followed_by_itself(works: Works) -> None:
    """The money had moved: the successor asks the shop, and does only what is left."""
    with works.worker() as victim:
        start(works, "slow-60-a")
        until(lambda: works.shop.done("charge"), "the charge")
        victim.kill()
    with works.worker() as heir:
        heir.wait_for("completed", "slow-60-a")
    assert (works.shop.done("charge"), works.shop.done("mail")) == (1, 1)
    assert works.state("slow-60-a")[0] == "completed"
    assert "step_reconciled" in works.types("slow-60-a")
    assert works.broker.host.ledger_findings() == []  # type: ignore[attr-defined]


def waited_ms(works: Works, key: str, since: float) -> float:
    """From this moment to the first credential of the last holder, on the one clock of this machine."""
    until(lambda: works.types(key).count("run_ended"), "the end")
    entries = list(works.broker.entries(works.run(key).id))
    last = max(index for index, entry in enumerate(entries) if entry.type == "run_resumed")
    return next(entry.ts for entry in entries[last:] if entry.type == "grant_issued") - since


@short
def test_from_a_crash_to_the_next_credential(works: Works, capsys: pytest.CaptureFixture[str]) -> None:
    """The run dies between two steps, so nothing but the lease keeps anybody waiting: by itself, and newly started."""
    with works.worker() as victim, works.worker(target="worked:bill") as other:
        start(works, "o1", then="die once")
        until(lambda: any(one.running.process.poll() is not None for one in (victim, other)), "the crash")
        renewed = max(entry.ts for entry in works.broker.entries(works.run("o1").id) if entry.type == "step_completed")
        by_itself = waited_ms(works, "o1", renewed + LEASE_S * 1000)
    with works.worker() as victim:
        start(works, "o2", then="die once")
        victim.running.ended()
    until(lambda: works.state("o2") == ("parked", "lease_lapsed"), "the lease")
    with works.worker() as heir:
        started_up = waited_ms(works, "o2", heir.wait_for("ready")["at"])
    with capsys.disabled():
        sys.stdout.write(
            f"\n    worker: first credential {by_itself:.0f} ms after the lease was over, by itself;"
            f" {started_up:.0f} ms after a new process was up\n"
        )
    assert by_itself < 10_000
    assert started_up < 10_000


@short
def test_an_answer_wakes_the_run(works: Works) -> None:
    works.broker.allow("agent", {"charge": {"effect": "once", "audience": works.shop.url},
                                 "mail": {"effect": "once", "audience": works.shop.url, "ask": True}})  # fmt: skip
    with works.worker() as worker:
        start(works, "o1")
        worker.wait_for("parked", "o1")
        assert works.state("o1") == ("parked", "awaiting_approval")
        asked = next(entry for entry in works.broker.entries(works.run("o1").id) if entry.type == "approval_requested")
        before = len(worker.said("taken"))
        works.broker.approve(str(asked.part("approval")["id"]))
        worker.wait_for("completed", "o1")
        assert len(worker.said("taken")) == before + 1
    assert (works.shop.done("charge"), works.shop.done("mail")) == (1, 1)


@short
def test_a_poison_run_is_set_aside_with_its_reason_until_it_is_released(works: Works) -> None:
    with works.worker("--max-tries", "2") as worker:
        run = start(works, "bad", first="raise")
        start(works, "good")
        aside = worker.wait_for("set_aside", "bad")
        worker.wait_for("completed", "good")
        assert [line["tries"] for line in worker.said("taken", "bad")] == [1, 2]
        assert aside["why"] == ("2 tries without a result; the last one ended with error "
                                "(ValueError: this order cannot be billed)")  # fmt: skip
        assert works.state("bad") == ("parked", "set_aside")
        with pytest.raises(errors.SetAside):
            works.broker.run("bad", agent="agent").__enter__()
        known = works.broker.host.run(run)  # type: ignore[attr-defined]
        assert known.epoch == 4

        works.release(run)

        worker.wait_for("taken", "bad", times=3)
    assert works.shop.done("charge") == 1


@short
def test_a_run_that_kills_its_worker_is_set_aside_too(works: Works) -> None:
    start(works, "bad", first="die")
    for _ in range(2):
        with works.worker("--max-tries", "2") as victim:
            assert victim.running.ended() == -signal.SIGKILL
    with works.worker("--max-tries", "2") as last:
        why = last.wait_for("set_aside", "bad")["why"]
    assert why == "2 tries without a result; the last one ended with lease_lapsed"
    assert works.shop.acts == []


@pytest.mark.parametrize("target", ["worked:bill", "worked:abill"])
def test_a_worker_that_is_stopped_lets_steps_end_and_gives_the_runs_back(works: Works, target: str) -> None:
    """Of the two orders side by side one ends later: both are waited for, and neither is left in doubt."""
    both = ["slow-6-a", "slow-7-b"]
    with works.worker(target=target) as worker:
        start(works, "slow-6-a", orders=both)
        until(lambda: works.shop.done("charge") >= (2 if target == "worked:abill" else 1), "the charge")
        start(works, "later", orders=["later"])
        worker.stop()
        worker.wait_for("stopped")
        assert worker.running.ended() == 0
        assert worker.said("given_back", "slow-6-a")
    types = works.types("slow-6-a")
    assert works.state("slow-6-a") == ("parked", "requested")
    assert "step_in_doubt" not in types
    assert types.count("step_completed") == (2 if target == "worked:abill" else 1)
    assert works.shop.done("mail") == 0
    with works.worker(target=target) as next_one:
        next_one.wait_for("completed", "slow-6-a")
        next_one.wait_for("completed", "later")
    done = [(act[0], act[1]["order"]) for act in works.shop.acts]
    orders = ["slow-6-a", "slow-7-b", "later"] if target == "worked:abill" else ["slow-6-a", "later"]
    assert sorted(done) == sorted((what, order) for what in ("charge", "mail") for order in orders)


def test_what_does_not_end_in_time_is_parked_in_the_middle(works: Works) -> None:
    with works.worker("--stop-timeout", "0.3") as worker:
        start(works, "slow-60-a")
        until(lambda: works.shop.done("charge"), "the charge")
        worker.stop(signal.SIGINT)
        assert worker.running.ended() == 1
    assert works.state("slow-60-a") == ("parked", "requested")
    assert works.types("slow-60-a")[-2:] == ["step_in_doubt", "run_parked"]


def test_a_worker_that_policy_does_not_want_leaves_the_run_alone(works: Works) -> None:
    """Another workload of the same agent sees the run; each refusal is an entry, so there are few."""
    run = start(works, "o1")
    key = works.broker.host.enroll("stranger", agents=["agent"])
    with works.worker("--poll", "0.05", key=key) as worker:
        refused = worker.wait_for("refused", "o1", times=2)
        first, second = worker.said("refused", "o1")[:2]
    assert second["at"] - first["at"] >= 1_000
    assert "policy_denied" in refused["why"]
    assert works.types("o1").count("run_resumed") == 0
    assert works.broker.entries(run)[-1].type == "decision"
    assert len(works.types("o1")) < 8
    assert works.shop.acts == []


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("worked", "not MODULE:AGENT"),
        ("nowhere:bill", "no module nowhere"),
        ("worked:nobody", "no agent"),
        ("worked:no_agent", "@stepgrant.agent"),
        ("broken:bill", "ZeroDivisionError at"),
    ],
)
def test_a_target_that_is_none(works: Works, target: str, words: str) -> None:
    (works.folder / "broken.py").write_text("1 / 0\n")
    ended = stepgrant_command(works.folder, "work", target, "--json", **works.environment())
    said = json.loads(ended.stderr)["error"]
    assert (ended.returncode, said["code"], ended.stdout) == (2, "usage", "")
    assert words in said["message"]


def test_a_worker_without_a_key_says_so_at_once(works: Works) -> None:
    given = {**works.environment(), "STEPGRANT_WORKLOAD_KEY": ""}
    ended = stepgrant_command(works.folder, "work", "worked:bill", **given)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "STEPGRANT_WORKLOAD_KEY" in ended.stderr


def test_people_read_words(works: Works) -> None:
    start(works, "o1")
    log = works.folder / "words.log"
    with started(works.folder, log, "work", "worked:bill", **works.environment()) as running:
        running.wait_for(r"agent o1 \(run_\w+\) taken, try 1\n")
        running.wait_for(r"agent o1 \(run_\w+\) completed\n")
        running.process.terminate()
        assert running.ended() == 0
    assert running.text.startswith("ready\n")
    assert running.text.endswith("stopping: 0 under way\nstopped\n")
