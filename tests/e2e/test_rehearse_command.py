"""`stepgrant rehearse` on the command line: the scaffolded agent as it is, reports for machines, and no leftovers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from e2e.rehearsing import AGENTS
from processes import started, stepgrant, within
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.commands.rehearse.lives import last_words
from stepgrant_broker.demo.stage import TARGETS, free_addresses, policy_files
from stepgrant_broker.policy.bundle import SETTINGS, starter_files

pytestmark = pytest.mark.timeout(600)  # the scaffolded agent is started some forty times
LONG_S = 500.0
BILLING, MAILER = ("--agent", "billing"), ("--agent", "mailer")
"""Who is not told it learns it from a life more."""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where the command makes its temporary folder: empty again afterwards, whatever happened."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def project(tmp_path: Path, agent: str) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(AGENTS / f"{agent}.py", folder / "agent.py")
    return folder


def rehearse(folder: Path, scratch: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return within(LONG_S, folder, "rehearse", *words, TMPDIR=str(scratch), **more)


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes that work below this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append((process / "cmdline").read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


def gone(folder: Path) -> bool:
    """Whether nothing works below this folder any more, soon."""
    end = time.monotonic() + 20
    while processes_in(folder) and time.monotonic() < end:
        time.sleep(0.05)
    return not processes_in(folder)


def test_nothing_is_found_in_the_scaffolded_agent_as_it_is(tmp_path: Path, scratch: Path) -> None:
    assert stepgrant(tmp_path, "init", "project").returncode == 0
    folder = tmp_path / "project"
    before = sorted(path.name for path in folder.rglob("*"))
    words = ["--quick", "--json", "-j", "2", "--junit", str(tmp_path / "report.xml"), "--", sys.executable, "agent.py"]
    done = rehearse(folder, scratch, *words, PAUSE="0")
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["findings"], report["notes"], report["policy"]) == (True, [], [], "policy")
    rows = {row["id"]: row for row in report["rehearsals"]}
    moments = ["before-grant", "after-grant", "after-effect", "after-record"]
    tools = ["greet", "notes.append", "report.publish"]
    kills = [f"{moment}:{tool}-1" for tool in tools for moment in moments]
    assert list(rows) == ["plain", *kills, "approve:notes.append", "policy:notes.append"]
    assert {row["resumed"] for id_, row in rows.items() if id_ != "plain"} == {"yes"}
    assert {row["alive"] for row in rows.values()} == {0}
    assert {row["approvals"]["asked"] for row in rows.values()} == {1, 4}
    assert rows["after-effect:greet-1"]["ran_twice"] == ["greet (read)"]
    assert {tool["tool"]: tool["hook"] for tool in report["tools"]} == dict(
        zip(tools, (False, False, True), strict=True)
    )
    suite = ET.parse(tmp_path / "report.xml").getroot()  # noqa: S314 - our own file
    assert (suite.tag, suite.get("tests"), suite.get("failures")) == ("testsuite", "15", "0")
    assert done.stderr.count("\n") == 15
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert list(scratch.iterdir()) == []


def test_a_finding_is_told_with_its_cure_and_fails_the_build(tmp_path: Path, scratch: Path) -> None:
    folder, junit = project(tmp_path, "bad/random_work"), tmp_path / "report.xml"
    words = ["--only", "after-record:send-1", "--ttl", "3", "--junit", str(junit), "--", sys.executable, "agent.py"]
    done = rehearse(folder, scratch, *words)
    assert done.returncode == ExitCode.REFUSED, done.stderr
    assert "ERROR work_redone: send: completed work is done again after a restart" in done.stdout
    assert "  mend   Record what decides which calls are made" in done.stdout
    assert f"  again  stepgrant rehearse --ttl 3 --only after-record:send-1 -- {sys.executable} agent.py" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("policy: everything allowed; 1 error, 0 warnings")
    plain, killed = ET.parse(junit).getroot()  # noqa: S314 - our own file
    assert [one.tag for one in plain] == []
    assert [(one.tag, one.get("type")) for one in killed] == [("failure", "work_redone")]
    assert list(scratch.iterdir()) == []


def test_warnings_fail_if_they_are_told_to(tmp_path: Path, scratch: Path) -> None:
    folder = project(tmp_path, "bad/undeclared")
    words = ["--only", "before-grant:charge-1", "--json", *BILLING, "--", sys.executable, "agent.py"]
    done = rehearse(folder, scratch, "--strict", *words)
    assert (done.returncode, json.loads(done.stdout)["findings"][0]["level"]) == (ExitCode.REFUSED, "warning")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--", "no-such-program"], ExitCode.NOT_FOUND, "cannot start no-such-program: No such file or directory"),
        ([], ExitCode.USAGE, "say how the agent is started: stepgrant rehearse -- python agent.py"),
        (["--in-place", "-j", "2", "--", "true"], ExitCode.USAGE, "--jobs goes neither with --in-place nor --beside"),
        (["--policy", "nowhere", "--", "true"], ExitCode.NOT_FOUND, "there is no folder nowhere"),
        (["--only", "x", *BILLING, "--", sys.executable, "agent.py"], ExitCode.NOT_FOUND, "no rehearsal x; there are "),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, scratch: Path, words: list[str], code: ExitCode, said: str
) -> None:
    done = rehearse(project(tmp_path, "good/careful"), scratch, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_leaves_neither_a_process_nor_a_folder(tmp_path: Path, scratch: Path, jobs: str) -> None:
    words = ["rehearse", "--quick", "-j", jobs, *MAILER, "--", sys.executable, "agent.py"]
    folder = project(tmp_path, "bad/waits_for_ever")
    with started(folder, tmp_path / "log", *words, TMPDIR=str(scratch)) as rehearsing:
        rehearsing.wait_for(r"\[  1/\?\] nothing happens to it: ok")
        end = time.monotonic() + 60
        while not any("agent.py" in line for line in processes_in(scratch)):
            assert time.monotonic() < end
            time.sleep(0.02)
        rehearsing.process.send_signal(signal.SIGINT)
        assert rehearsing.ended() == ExitCode.INTERRUPTED
        assert "Traceback" not in rehearsing.text
    assert gone(scratch)
    assert list(scratch.iterdir()) == []


def test_even_kill_9_leaves_no_process(tmp_path: Path, scratch: Path) -> None:
    words = ["rehearse", "--only", "after-record:send-1", *MAILER, "--", sys.executable, "agent.py"]
    folder = project(tmp_path, "bad/waits_for_ever")
    with started(folder, tmp_path / "log", *words, TMPDIR=str(scratch)) as rehearsing:
        rehearsing.wait_for(r"\[  1/\?\] nothing happens to it: ok")
        end = time.monotonic() + 60
        while not any("agent.py" in line for line in processes_in(scratch)):
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(rehearsing.process.pid, signal.SIGKILL)
        rehearsing.ended()
    assert gone(scratch)


def test_a_folder_that_is_no_project_is_not_copied(tmp_path: Path, scratch: Path) -> None:
    folder = project(tmp_path, "good/careful")
    with (folder / "huge").open("wb") as file:
        file.truncate(101_000_000)
    done = rehearse(folder, scratch, "--", sys.executable, "agent.py")
    assert (done.returncode, "or say --in-place" in done.stderr) == (ExitCode.USAGE, True)
    again = rehearse(
        folder, scratch, "--in-place", "--only", "before-grant:balance-1", *BILLING, "--", sys.executable, "agent.py"
    )
    # In one folder the second rehearsal meets the book of the first: that is what --in-place means.
    assert (folder / "charges").exists(), again.stderr


def test_the_demos_agent_is_rehearsed_beside_its_services(tmp_path: Path, scratch: Path) -> None:
    addresses = dict(zip(TARGETS, free_addresses(len(TARGETS)), strict=True))
    for path, data in policy_files(addresses).items():
        file = tmp_path / "policy" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    folder = tmp_path / "project"
    folder.mkdir()
    beside = [sys.executable, str(AGENTS / "beside" / "demo_targets.py"), json.dumps(addresses)]
    agent = [sys.executable, "-m", "stepgrant_broker.demo.agent", "rotate-keys", json.dumps(addresses)]
    words = ["--policy", str(tmp_path / "policy"), "--beside", shlex.join(beside), "--json"]
    done = rehearse(folder, scratch, *words, "--only", "after-effect:keys.rotate-3", "--", *agent)
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    plain, killed = json.loads(done.stdout)["rehearsals"]
    assert (plain["approvals"]["asked"], killed["resumed"], killed["ran_twice"]) == (1, "yes", [])
    assert gone(scratch)
    assert list(scratch.iterdir()) == []


def test_services_that_do_not_come_up_are_said(tmp_path: Path, scratch: Path) -> None:
    folder = project(tmp_path, "good/careful")
    beside = shlex.join([sys.executable, "-c", "print('no port left')"])
    done = rehearse(folder, scratch, "--beside", beside, "--", sys.executable, "agent.py")
    assert (done.returncode, "it said last: no port left" in done.stderr) == (ExitCode.USAGE, True)


def test_a_langgraph_agent_as_it_is(tmp_path: Path, scratch: Path) -> None:
    folder = project(tmp_path, "good/langgraph_refund")
    words = ["--only", "after-effect:refund-1", *BILLING, "--ttl", "2", "--json", "--", sys.executable, "agent.py"]
    done = rehearse(folder, scratch, *words)
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["findings"], report["notes"]) == ([], [])
    assert [(row["resumed"], row["alive"]) for row in report["rehearsals"]] == [("-", 0), ("yes", 0)]
    assert {tool["tool"]: tool["ids"] for tool in report["tools"]} == {"look_up": True, "refund": True}


EXAMPLES = AGENTS.parents[1] / "sdk" / "examples"


@pytest.mark.parametrize(
    ("words", "only"),
    [
        (["refund.py"], "after-effect:refund.create-1"),
        (["change_request.py"], "after-effect:change.apply-1"),
        (["secrets_rotation.py"], "after-effect:key.create-1"),
        (["incident_evidence.py"], "after-effect:status.post-1"),
        (["account_provisioning.py", "leave"], "after-effect:account.disable-1"),
    ],
    ids=lambda value: value[0].removesuffix(".py") if isinstance(value, list) else "",
)
def test_each_example_is_rehearsed_as_it_is(tmp_path: Path, scratch: Path, words: list[str], only: str) -> None:
    folder, (address,) = tmp_path / "project", free_addresses(1)
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    settings = (EXAMPLES / "data.json").read_bytes().replace(b"http://127.0.0.1:8431", address.encode())
    for path, data in {**starter_files(), SETTINGS: settings}.items():
        file = folder / "policy" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    agent = [sys.executable, "_target.py", sys.executable, *words]
    done = rehearse(folder, scratch, "--only", only, "--json", "--", *agent, EXAMPLES_TARGET=address)
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["findings"], report["notes"]) == ([], [])
    plain, killed = report["rehearsals"]
    assert (plain["alive"], killed["alive"], killed["resumed"], killed["ran_twice"]) == (0, 0, "yes", [])


def test_last_words_are_made_visible_whatever_bytes_they_are(tmp_path: Path) -> None:
    log = tmp_path / "output"
    log.write_bytes(b"first\n" * 5000 + b"\n\x1b[31mred\n\xff\xfe\n")
    assert last_words(log)[-2:] == ("\\x1b[31mred", "\ufffd\ufffd")
    assert len(last_words(log)) == 8
    assert last_words(tmp_path / "none") == ()
