"""README's blocks run, are compared with what is said, or are named here with the reason why nobody runs them.

A fence without a language, one in a language that is not listed here, a command or a program that no test runs: each
makes this file fail.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.evidence_stage import readme_lines
from fences import commands, fences
from notehands import LOG
from processes import started, within
from stepgrant.tlog import read_log_policy

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = commands(README)
RUN = {"sh", "python"}
COMPARED = {"text", "log-policy"}
NOT_RUN = {"diagram": "a picture"}
RUN_ELSEWHERE = {
    "make demo",  # the command behind it, by test_demo.py
    "make test",  # what runs this
    "pip install 'stepgrant[broker,embedded]'",  # from the wheel, by packaging/test_wheel.py
    *readme_lines(),  # by test_evidence.py, which fails if it leaves one out
}
RUN_HERE = {
    "stepgrant dev -- python first.py",
    "stepgrant run show my-first-run",
    "stepgrant rehearse --quick -- python first.py",
    "stepgrant dev -- python greeter.py",
    "stepgrant dev -- stepgrant work greeter:greeter",
    "stepgrant policy check",
    "stepgrant policy test",
}
PATIENCE_S = 220.0
AS_A_READER = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "160"}


def shown(language: str) -> list[str]:
    """What stands in the fences of this language."""
    return [content for one, content in fences(README) if one == language]


FIRST, GREETER, SERVER = shown("python")


def stepgrant(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a reader would."""
    return within(PATIENCE_S, cwd, *words, **AS_A_READER)


def line(text: str) -> list[str]:
    """The words of this line of the README; a broker takes a port that is free, as several tests run at once."""
    assert text in SHELL
    words = text.split()[1:]
    return [words[0], "--port", "0", *words[1:]] if words[0] == "dev" else words


def test_every_fence_is_run_or_compared_or_has_a_reason() -> None:
    assert {language for language, _ in fences(README)} == RUN | COMPARED | set(NOT_RUN)


@pytest.mark.parametrize(
    "text", ["```\nmake\n```\n", "```sh\nmake\n", "```sh\nmake\n```python\nimport stepgrant\n```\n"]
)
def test_a_fence_that_nobody_would_run_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fence"):
        list(fences(text))


def test_every_command_of_the_readme_is_run_here_or_by_another_test() -> None:
    assert set(SHELL) == RUN_HERE | RUN_ELSEWHERE
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [text for text in RUN_HERE if f'line("{text}")' not in tests] == []


def test_the_two_commands_exist() -> None:
    targets = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", targets, re.MULTILINE)
    assert re.search(r"^test:", targets, re.MULTILINE)


def test_the_extras_that_pip_is_told_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^broker = \[", project, re.MULTILINE)
    assert re.search(r"^embedded = \[", project, re.MULTILINE)


def test_the_first_run_survives_kill_9_and_is_shown(tmp_path: Path) -> None:
    """Killed in the middle of its second step, whatever else this machine does; then the README's own program."""
    patient = FIRST.replace("time.sleep(1)", "if name != 'Ada': print('at work', flush=True); time.sleep(600)")
    assert patient != FIRST
    (tmp_path / "first.py").write_text(patient)
    command = line("stepgrant dev -- python first.py")
    with started(tmp_path, tmp_path / "1.log", *command, **AS_A_READER) as first:
        first.wait_for("Hello, Ada!\nat work")
        os.kill(agent_of(first.process.pid), signal.SIGKILL)
        assert first.ended() == 128 + signal.SIGKILL
        assert "Grace" not in first.text

    (tmp_path / "first.py").write_text(FIRST)
    second = stepgrant(*command, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines() == [f"Hello, {name}!" for name in ("Ada", "Grace", "Barbara")]

    third = stepgrant(*command, cwd=tmp_path)
    assert (third.returncode, third.stdout) == (1, "")
    assert third.stderr.splitlines()[-1].startswith("stepgrant.errors.RunEnded: run 'my-first-run' ")
    ada_was_greeted_once(tmp_path)


def agent_of(parent: int) -> int:
    """The process of `python first.py` under this one."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                after_its_name = (path / "stat").read_text().rpartition(") ")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            found += [int(path.name)] if words[1:2] == [b"first.py"] and int(after_its_name[1]) == parent else []
    (agent,) = found
    return agent


def ada_was_greeted_once(folder: Path) -> None:
    """The timeline tells of both holders, and what the first one finished was not done again by the second."""
    with started(folder, folder / "dev.log", "dev", "--port", "0") as broker:
        broker.wait_for("Ctrl-C ends it")
        show = line("stepgrant run show my-first-run")
        answer = stepgrant(*show, cwd=folder)
        told = json.loads(stepgrant(*show, "--json", cwd=folder).stdout)
    assert answer.returncode == 0, answer.stderr
    assert "under epoch 2" in answer.stdout
    assert [attempts(block) for block in told["blocks"] if block["step"] is not None] == [
        ("greet-1", 1, ["completed: Hello, Ada!"]),
        ("greet-2", 1, []),
        ("greet-2", 1, ["completed: Hello, Grace!"]),
        ("greet-3", 1, ["completed: Hello, Barbara!"]),
    ]


def attempts(block: dict[str, Any]) -> tuple[str, int, list[str]]:
    """A step, how many credentials it was given in this part of its life, and what was recorded of its work."""
    told = [one["text"] for one in block["lines"]]
    issued = sum(text.startswith("credential issued") for text in told)
    return block["step"], issued, [text for text in told if text.startswith("completed")]


def test_the_rehearsal_says_what_the_sample_says(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(FIRST)
    done = stepgrant(*line("stepgrant rehearse --quick -- python first.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (sample,) = shown("text")

    def without_times(text: str) -> list[list[str]]:
        table = text.partition("\n\n")[0].splitlines()
        return [[cell for cell in re.split(" {2,}", row) if not re.fullmatch("[0-9.]+ s", cell)] for row in table]

    assert without_times(done.stdout) == without_times(sample)


def test_the_worker_does_what_was_started(tmp_path: Path) -> None:
    (tmp_path / "greeter.py").write_text(GREETER)
    begun = stepgrant(*line("stepgrant dev -- python greeter.py"), cwd=tmp_path)
    assert (begun.returncode, begun.stdout) == (0, ""), begun.stderr
    work = line("stepgrant dev -- stepgrant work greeter:greeter")
    with started(tmp_path, tmp_path / "work.log", *work, **AS_A_READER) as worker:
        worker.wait_for("completed")
        assert "greetings" in worker.text
        worker.process.send_signal(signal.SIGINT)
        assert worker.ended() == 0


def test_the_log_policy_is_made_of_what_a_witness_prints(tmp_path: Path) -> None:
    (sample,) = shown("log-policy")
    assert "`stepgrant ledger witness --name w1` prints this line" in sample
    words = ("ledger", "witness", "--name", "w1", "--log", LOG.key.vkey, "--folder", "kept", "--port", "0")
    with started(tmp_path, tmp_path / "witness.log", *words, **AS_A_READER) as witness:
        printed = witness.wait_for(r"(?m)^witness w1 \S+ http\S+$")[0]
    policy = read_log_policy(re.sub("witness w1 <.*>", printed, re.sub("log <.*>", f"log {LOG.key.vkey}", sample)))
    assert (policy.logs, list(policy.witnesses), policy.quorum) == ((LOG.key,), ["w1"], "w1")


def test_the_resource_servers_names_exist(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SERVER], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_policy_commands_pass_in_a_new_project(tmp_path: Path) -> None:
    assert "`stepgrant init project`" in README
    assert stepgrant("init", "project", cwd=tmp_path).returncode == 0
    for command in (line("stepgrant policy check"), line("stepgrant policy test")):
        done = stepgrant(*command, cwd=tmp_path / "project")
        assert done.returncode == 0, done.stdout + done.stderr
