"""The demo as people run it, a process of its own: it holds, it ends in time, and it leaves nothing behind.

`test_demo_checks.py` shows that its checks fail where a promise is broken.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stepgrant_broker.demo
from processes import gone, started, within
from stepgrant_broker.demo import processes, reaper, show
from stepgrant_broker.demo.checks import Broken, Checks, Finding
from stepgrant_broker.demo.stage import Stage
from stepgrant_broker.demo.words import Words

DEMO = Path(stepgrant_broker.demo.__file__).parent

# ------------------------------------------------------------------------------------------------------- no leftovers

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def test_whatever_ends_the_story_no_process_is_left(tmp_path: Path) -> None:
    pids: list[int] = []

    def story() -> None:
        with processes.Processes(tmp_path) as ours:
            running, frozen = (ours.start(name, SLEEPER, os.environ) for name in ("running", "frozen"))
            pids.extend((running.pid, frozen.pid))
            running.wait_line("up", 60)
            frozen.wait_line("up", 60)
            frozen.freeze()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        story()
    assert [gone(pid) for pid in pids] == [True, True]


def test_a_process_that_ends_too_early_is_named_with_its_last_words(tmp_path: Path) -> None:
    with processes.Processes(tmp_path) as ours:
        child = ours.start("teller", [sys.executable, "-c", "print('no port left')"], os.environ)
        with pytest.raises(Broken, match=r"teller ended \(0\) without 'up'; it said last: no port left"):
            child.wait_line("up", 60)


def test_the_reaper_knows_who_was_not_waited_for() -> None:
    assert reaper.left_over(["+1\n", "+22\n", "-1\n", "nonsense\n", "+\n"]) == [22]


def test_even_kill_9_of_the_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from stepgrant_broker.demo.processes import Processes\n"
        "with Processes(Path(sys.argv[1])) as ours:\n"
        f"    child = ours.start('child', {SLEEPER!r}, os.environ)\n"
        "    child.wait_line('up', 60)\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    pid = int(demo.stdout.readline())
    demo.kill()
    demo.wait(60)
    demo.stdout.close()
    deadline = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < deadline, "the child outlived the demo"
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------ how it is made


@pytest.mark.parametrize("module", ["agent", "zombie", "target"])
def test_agent_and_target_use_nothing_of_the_broker(module: str) -> None:
    tree = ast.parse((DEMO / f"{module}.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    inside = {name for name in names if name.partition(".")[0] in {"stepgrant_broker", "stepgrant_policies"}}
    assert inside <= {"stepgrant_broker.demo.agent"}
    assert not {name for name in names if name.startswith("stepgrant._") or "._" in name}


# -------------------------------------------------------------------------------------------- how a showing comes out


def test_the_exit_code_is_zero_only_if_all_checks_held(capsys: pytest.CaptureFixture[str]) -> None:
    def holds(_: Stage, checks: Checks, __: Words) -> None:
        checks.check("good", Finding(holds=True, evidence=""))

    def fails(stage: Stage, checks: Checks, words: Words) -> None:
        holds(stage, checks, words)
        checks.check("bad", Finding(holds=False, evidence="seen"))

    def breaks(stage: Stage, checks: Checks, words: Words) -> None:
        holds(stage, checks, words)
        raise Broken("nobody came")

    def interrupted(stage: Stage, checks: Checks, words: Words) -> None:
        holds(stage, checks, words)
        raise KeyboardInterrupt

    codes = {}
    for story in (holds, fails, breaks, interrupted):
        codes[story.__name__] = show.run(as_json=True, keep=False, story=story)
        summary = json.loads(capsys.readouterr().out)
        assert summary["ok"] is (story is holds)
        if summary["folder"] is not None:
            shutil.rmtree(summary["folder"])
    assert codes == {"holds": 0, "fails": 1, "breaks": 1, "interrupted": 130}


def test_a_showing_that_takes_too_long_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def holds(_: Stage, checks: Checks, __: Words) -> None:
        checks.check("good", Finding(holds=True, evidence=""))

    assert show.run(as_json=True, keep=False, story=holds, limit_s=0) == 1
    summary = json.loads(capsys.readouterr().out)
    assert summary["failed"] == ["it took no longer than 0 s"]
    Path(summary["folder"]).rmdir()
    assert show.LIMIT_S == 60


def test_what_failed_is_shown_whole_and_its_folder_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_: Stage, checks: Checks, __: Words) -> None:
        checks.chapter = "a chapter"
        checks.check("a promise", Finding(holds=False, evidence="x" * 500 + "\x1b[2J"))

    assert show.run(as_json=False, keep=False, story=fails) == 1
    out = capsys.readouterr().out
    assert "a chapter" in out
    assert "✗ a promise" in out
    assert "x" * 500 + "\\x1b[2J" in out
    folder = Path(out.rpartition(": ")[2].strip())
    assert folder.is_dir()
    folder.rmdir()


def test_a_signal_between_a_process_and_our_note_of_it_waits() -> None:
    interrupts = processes.Interrupts()
    reached = []

    def start() -> None:
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            reached.append("the end of the block")

    before = signal.getsignal(signal.SIGTERM)
    with interrupts.caught(), pytest.raises(KeyboardInterrupt):
        start()
    assert reached == ["the end of the block"]
    assert signal.getsignal(signal.SIGTERM) is before


# ---------------------------------------------------------------------------------------------------------- the story


def left_behind(folder: Path) -> list[str]:
    """Command lines of processes that still have to do with a demo in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                about = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in about:
                found.append(about[:200].decode(errors="replace"))
    return found


PATIENCE_S = 200.0
"""A machine that does other things as well need not keep the demo's minute, which `show.LIMIT_S` is."""
CLAIMS = (
    "the agent was killed",
    "the agent was killed again",
    "its plan and two rotations are on record, nothing else was begun",
    "mail has done its work, and neither agent nor broker know",
    "mail was asked and not made to do it again",
    "a credential for one target is refused by another",
    "after SIGCONT its old credential is refused by the target that it was for",
    "it can record nothing, begin nothing and end nothing",
    "the run is parked, the process has ended, no old key is revoked",
    "dana of group security says yes on the command line",
    "each of the five keys was rotated exactly once",
    "the five old keys were revoked exactly once",
    "a fresh process verifies it with the public key alone",
    "one flipped byte makes it fail",
    "no fenced holder got anything",
    "none rests in database, logs, books or output",
    f"it took no longer than {PATIENCE_S:g} s",
)


@pytest.mark.timeout(240)
def test_the_whole_story_holds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = within(PATIENCE_S + 20, tmp_path, "demo", "--json", "--limit", f"{PATIENCE_S:g}", TMPDIR=str(tmp_path))
    summary = json.loads(done.stdout)
    assert summary["failed"] == []
    assert done.returncode == 0, done.stderr
    assert summary["ok"] is True
    assert {made["claim"] for made in summary["checks"]} >= set(CLAIMS)
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(120)
def test_ctrl_c_in_the_middle_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    log = tmp_path / "said"
    with started(tmp_path, log, "demo", TMPDIR=str(tmp_path)) as demo:
        deadline = time.monotonic() + 90
        while not any(tmp_path.glob("*/books/*.jsonl")):
            assert demo.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        demo.process.send_signal(signal.SIGINT)
        assert demo.ended() == 130
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == [log]
