"""Each example is run as a user runs it, killed right after an effect that must not happen twice, and started again.

It dies by SIGKILL, services included. They really verify; the referee judges what is left.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

import stepgrant
from checker.check import check
from checker.reading import read_lines, read_sqlite
from faults.forks import environment, lived
from faults.processes import Place
from stepgrant.receipt import Event
from stepgrant_broker.testing import TestHost, start

EXAMPLES: Final = Path(__file__).parent.parent.parent / "sdk" / "examples"
PATIENCE_S: Final = 150.0
LIVES_MOST: Final = 6
ASKED: Final = 75
QUICK: Final = {"lease_s": 1.5, "redeem_window_ms": 1000, "leeway_ms": 200}


@dataclass(frozen=True)
class Story:
    """An example with its words, the life in which it is killed, after which effect of that life, and what it does."""

    name: str
    words: tuple[str, ...]
    life: int
    nth: int
    killed_in: str
    times: Mapping[str, int]
    asks: int = 0


STORIES: Final = (
    Story("refund", (), 1, 1, "refund.create", {"refund.create": 1, "order.note": 1, "mail.send": 1}, asks=1),
    Story("change_request", (), 1, 1, "change.apply", {"change.apply": 2, "change.close": 1}, asks=2),
    Story("secrets_rotation", (), 0, 2, "key.create", {"key.create": 1, "key.deploy": 3, "key.revoke": 1}),
    Story("incident_evidence", (), 0, 1, "status.post", {"status.post": 1, "evidence.store": 4, "host.snapshot": 2}),
    Story("account_provisioning", ("join",), 0, 2, "account.create", {"account.create": 1, "group.add": 3}),
    Story("account_provisioning", ("leave",), 1, 1, "account.disable", {"group.remove": 3, "account.disable": 1}, 1),
)


class Life(NamedTuple):
    """What a life left."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Stage:
    """A broker that knows the examples' agents, and the environment in which they run."""

    host: TestHost
    folder: Path
    names: dict[str, str]

    def live(self, story: Story, *, kill: str = "") -> Life:
        """One life of the example, with its services."""
        more = {"STEPGRANT_TEST": "1", "STEPGRANT_TEST_FAILPOINT": kill} if kill else {}
        return self.served(str(EXAMPLES / f"{story.name}.py"), *story.words, **more)

    def served(self, *words: str, **more: str) -> Life:
        """The services, for as long as a Python with these words runs. They are forked, what they start is not."""
        given = environment(**self.names, **more)
        target, patience = EXAMPLES / "_target.py", PATIENCE_S
        return Life(*lived(target, sys.executable, *words, environment=given, patience_s=patience, folder=self.folder))

    @property
    def book(self) -> list[Any]:
        return read_lines(self.folder / "services.jsonl")


def settings(address: str) -> dict[str, Any]:
    """The settings that lie beside the examples, for this address, and for services that have a key.

    As they are, for services without one, `test_rehearse_command.py` has each example killed and started again.
    """
    text = (EXAMPLES / "data.json").read_text(encoding="utf-8").replace("http://127.0.0.1:8431", address)
    shipped: dict[str, Any] = json.loads(text)
    for agent in shipped["agents"].values():
        for tool in agent["tools"].values():
            del tool["redeem"]
    return shipped


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    place = Place.free()
    place.socket.close()
    policy = settings(place.url)
    with start(folder / "broker", settings=policy, **QUICK) as host:
        key = host.enroll("agents", agents=sorted(policy["agents"]))
        names = {"STEPGRANT_URL": host.url, "STEPGRANT_WORKLOAD_KEY": str(key), "EXAMPLES_TARGET": place.url}
        names["EXAMPLES_TARGET_KEY"] = str(host.enroll("services", audiences=[place.url]))
        yield Stage(host, folder, names)


def told(stage: Stage, story: Story) -> list[Life]:
    """All its lives: killed once, approved when it asks."""
    lives: list[Life] = []
    while len(lives) < LIVES_MOST:
        kill = f"sdk.after_effect:kill:{story.nth}" if len(lives) == story.life else ""
        lives.append(stage.live(story, kill=kill))
        if lives[-1].returncode == 0:
            break
        for approval in re.findall(r"apr_\w+", lives[-1].stdout):
            stage.host.approve(approval)
    return lives


def judged(stage: Stage, story: Story) -> list[str]:
    """What the referee says, and what happened another number of times than it should have."""
    evidence = read_sqlite(stage.folder / "broker" / "stepgrant.db").beside(books=stage.book)
    times = Counter(line["did"] for line in stage.book)
    wrong = [f"{tool} happened {times[tool]} times" for tool, number in story.times.items() if times[tool] != number]
    return [*map(str, check(evidence)), *wrong]


def report(lives: list[Life]) -> str:
    return "\n".join(f"exit {one.returncode}\n{one.stdout}{one.stderr[-2000:]}" for one in lives)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: "-".join((story.name, *story.words)))
def test_killed_and_started_again(tmp_path: Path, story: Story) -> None:
    with staged(tmp_path) as stage:
        lives = told(stage, story)
        codes = [life.returncode for life in lives]
        assert codes == [ASKED] * bool(story.asks) + [-signal.SIGKILL, 0], report(lives)
        assert judged(stage, story) == [], report(lives)
        in_doubt = [one for one in stage.host.entries(stage.host.runs()[0].id) if one.type == "step_in_doubt"]
        assert [one.part("action")["tool"] for one in in_doubt] == [story.killed_in]
        again = stage.live(story)
        assert again.returncode == 0, report([again])
        assert judged(stage, story) == [], "started again after its end, it did something"


RUNS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "refund": ("refund-7001", {"agent": "support", "input": {"order": "7001", "wish": 150}}),
    "change_request": ("CHG-7", {"agent": "changes", "input": {"change": "CHG-7"}}),
    "secrets_rotation": ("rotate-2026-11", {"agent": "rotation", "input": {"label": "2026-11"}}),
    "incident_evidence": ("INC-31", {"agent": "responder"}),
    "account_provisioning": ("join-ada", {"agent": "joiner", "input": {"login": "ada"}}),
}


@pytest.mark.timeout(240)
def test_what_failed_is_not_told_as_done(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        for name, (key, options) in RUNS.items():
            url, workload = stage.names["STEPGRANT_URL"], stage.names["STEPGRANT_WORKLOAD_KEY"]
            with stepgrant.run(key, **options, url=url, workload_key=workload) as run:
                run.fail()
            life = stage.live(next(story for story in STORIES if story.name == name))
            assert (life.returncode, life.stderr) == (1, ""), report([life])
            assert life.stdout.startswith(f"run '{key}' (run_"), report([life])
            assert "is failed, and that is final; nothing was done now." in life.stdout
        assert stage.book == []


@pytest.mark.timeout(240)
def test_a_person_who_says_no_is_told_as_the_end(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        for story in (STORIES[0], STORIES[-1]):
            asked = stage.live(story)
            assert asked.returncode == ASKED, report([asked])
            (approval,) = re.findall(r"apr_\w+", asked.stdout)
            stage.host.deny(approval)
            denied = stage.live(story)
            assert (denied.returncode, denied.stderr) == (1, ""), report([denied])
            assert "approval_denied" in denied.stdout
        assert not [line for line in stage.book if line["did"] in {"refund.create", "account.disable"}]


QUEUES: Final = "import account_provisioning as a; a.leave.start({'login': 'bob'}, run_key='leave-bob')"
HANDLES: Final = ("account_provisioning:join", "account_provisioning:leave")


@contextmanager
def worker(stage: Stage, *, kill: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """`stepgrant work`, with its services."""
    more = {"STEPGRANT_TEST": "1", "STEPGRANT_TEST_FAILPOINT": kill} if kill else {}
    words = [sys.executable, str(EXAMPLES / "_target.py"), sys.executable, "-m", "stepgrant.cli.main", "work", *HANDLES]
    names = environment(**stage.names, **more)
    names["PYTHONPATH"] += f":{EXAMPLES}"
    process = subprocess.Popen(words, cwd=stage.folder, env=names, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(stage: Stage, kind: str) -> Event:
    """The first entry of this type in the only run, once it is there."""
    late = time.monotonic() + PATIENCE_S
    while time.monotonic() < late:
        found = [event for run in stage.host.runs() for event in stage.host.entries(run.id) if event.type == kind]
        if found:
            return found[0]
        time.sleep(0.1)
    raise TimeoutError(kind)


@pytest.mark.timeout(240)
def test_a_worker_goes_on_with_what_another_left(tmp_path: Path) -> None:
    """Queued, worked, asked about, answered, killed after its last effect, and ended by another worker."""
    with staged(tmp_path) as stage:
        names = environment(**stage.names)
        subprocess.run([sys.executable, "-c", QUEUES], cwd=EXAMPLES, env=names, timeout=PATIENCE_S, check=True)
        with worker(stage, kill="sdk.after_effect:kill:5") as first:
            stage.host.approve(str(until(stage, "approval_requested").part("approval")["id"]))
            assert first.wait(PATIENCE_S) == -signal.SIGKILL
        with worker(stage):
            assert until(stage, "run_ended").part("outcome")["status"] == "completed"
        assert judged(stage, STORIES[-1]) == []
        assert [run.key for run in stage.host.runs()] == ["leave-bob"]


ASKS_WITHOUT_A_GRANT: Final = """
import os, sys, httpx
answer = httpx.post(os.environ["EXAMPLES_TARGET"] + "/mail.send", json={"to": "all"}, trust_env=False)
sys.exit(answer.status_code - 400)
"""


def test_the_services_refuse_what_no_grant_is_for(tmp_path: Path) -> None:
    """They are a real resource server: without a grant nothing is done."""
    with staged(tmp_path) as stage:
        assert stage.served("-c", ASKS_WITHOUT_A_GRANT).returncode == 1, "401: there is no token"
        assert stage.book == []


def test_each_example_is_short_and_named_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    found = sorted(path for path in EXAMPLES.glob("*.py") if not path.name.startswith("_"))
    assert {path.stem for path in found} == {story.name for story in STORIES}
    for path in found:
        assert path.name in readme
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 120
