"""`stepgrant init` and `stepgrant dev`, as a newcomer uses them: real processes, really killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import stepgrant_broker.commands
from faults.forks import spawned
from fences import commands
from processes import COMMAND, environment, started, stepgrant
from stepgrant.cli.exits import ExitCode

pytestmark = pytest.mark.timeout(240)  # many processes, each of which may have to wait for a busy machine

SCAFFOLDED = Path(stepgrant_broker.commands.__file__).parent / "scaffold" / "README.md"
README = commands(SCAFFOLDED.read_text(encoding="utf-8"))
AGES = "600"
"""Seconds that the agent leaves for its killer, who is quicker on any machine."""
WORKS = ("making a plan", "looking up", "writing into")
WAITS = "my predecessor may still be alive"
TITLE = '"title": "Greetings, first"'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh scaffolded project."""
    folder = tmp_path / "project"
    assert stepgrant(tmp_path, "init", "project").returncode == 0
    return folder


def dev(*words: str) -> list[str]:
    return ["dev", "--port", "0", *words]


def readme(line: str, approval: str = "") -> list[str]:
    """The words of this line of the README that `init` wrote, which has to have it."""
    assert line in README
    return line.replace("<approval>", approval).split()[1:]


def test_every_command_of_its_readme_is_run_here() -> None:
    """Each has to be named in one of the tests below; `readme` refuses one that is not there."""
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [line for line in README if f'readme("{line}"' not in tests] == []


def test_scaffold_is_right_and_never_overwrites(project: Path) -> None:
    assert stepgrant(project, *readme("stepgrant policy check")).returncode == 0
    tested = stepgrant(project, *readme("stepgrant policy test"))
    assert (tested.returncode, "100% of the rules" in tested.stdout) == (0, True)
    assert (project / "README.md").read_bytes() == SCAFFOLDED.read_bytes()
    (project / "agent.py").write_text("mine", encoding="utf-8")
    again = stepgrant(project.parent, "init", "project")
    assert again.returncode == ExitCode.USAGE
    assert again.stderr.count("\n") == 1
    assert (project / "agent.py").read_text(encoding="utf-8") == "mine"


def test_one_file_in_the_way_keeps_everything_from_being_written(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine", encoding="utf-8")
    assert stepgrant(tmp_path, "init", "project").returncode == ExitCode.USAGE
    assert [one.name for one in (tmp_path / "project").iterdir()] == ["README.md"]


def test_scaffolded_agent_survives_what_its_readme_does_to_it(project: Path, tmp_path: Path) -> None:
    """Ctrl-C, kill -9 twice, an answer from a second terminal: what it says happens, and everything happens once."""
    again = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    agent = dev(*readme("stepgrant dev -- python agent.py")[1:])
    with started(project, tmp_path / "1.log", *agent, PAUSE=AGES, **again) as first:
        plan = first.wait_for("the plan: (.*)")[1]
        first.wait_for("kill me now")
        first.process.send_signal(signal.SIGINT)
        assert first.ended() == 128 + signal.SIGINT
        assert "stopped. Start me again" in first.text
    with started(project, tmp_path / "2.log", *agent, PAUSE="0", **again) as second:
        second.wait_for("I wait. You can also stop me")
        os.kill(int(second.wait_for(r"kill -9 (\d+)")[1]), signal.SIGKILL)
        assert second.ended() == 128 + signal.SIGKILL
        assert (f"the plan: {plan}\n" in second.text, WAITS in second.text) == (True, False)
    with started(project, tmp_path / "3.log", *agent, PAUSE=AGES, **again) as third:
        approval = third.wait_for("approval approve (apr_[0-9a-z]+)")[1]
        assert (f"the plan: {plan}\n" in third.text, WAITS in third.text) == (True, True)
        assert [word for word in WORKS if word in third.text] == []
        assert approval in stepgrant(project, *readme("stepgrant approval list")).stdout
        assert TITLE in stepgrant(project, *readme("stepgrant approval show <approval>", approval)).stdout
        asked = said_yes(project, *readme("stepgrant approval approve <approval>", approval))
        assert TITLE in asked.partition("Approve exactly this?")[0]
        third.wait_for("it is published, but not yet recorded")
        os.kill(int(third.wait_for(r"kill -9 (\d+)")[1]), signal.SIGKILL)
        assert third.ended() == 128 + signal.SIGKILL
    with started(project, tmp_path / "4.log", *agent, PAUSE="0", **again) as fourth:
        fourth.wait_for("I was killed while publishing, so I look")
        fourth.wait_for("finished: out/report-first.txt")
        assert fourth.ended() == 0
        assert [word for word in (*WORKS, "publishing out") if word in fourth.text] == []
    notes = (project / "out" / "notes-first.txt").read_text(encoding="utf-8").splitlines()
    assert len({line.split()[0] for line in notes}) == len(notes) == 3
    looked_at(project, tmp_path / "5.log")


def said_yes(project: Path, *words: str) -> str:
    """Run this at a terminal and type y when it asks. Everything that stood there."""
    keyboard, terminal = os.openpty()
    given = environment(COLUMNS="160", NO_COLOR="1")
    process = spawned(
        COMMAND, *words, environment=given, stdin=terminal, stdout=terminal, stderr=terminal, folder=project
    )
    os.close(terminal)
    seen = ""
    with os.fdopen(keyboard, "r+b", buffering=0) as typed, suppress(OSError):  # EIO: nobody has the terminal any more
        while said := typed.read(1 << 16):
            before, seen = seen, seen + said.decode()
            if "[y/N]" in seen and "[y/N]" not in before:
                typed.write(b"y\n")
    assert process.wait(60) == 0, seen
    return seen


def looked_at(project: Path, log: Path) -> None:
    """What the README has to be looked at afterwards."""
    with started(project, log, *dev()) as alone:
        alone.wait_for("Ctrl-C ends it")
        told = stepgrant(project, *readme("stepgrant run show")).stdout
        assert "doubt settled: the hook asked the target (publish~reconcile~1): it had happened" in told
        assert "went silent" in told
        explained = stepgrant(project, *readme("stepgrant policy explain greetings-first publish"))
        assert (explained.returncode, "report.publish" in explained.stdout) == (0, True)
        got = stepgrant(project, *readme("stepgrant receipt get greetings-first --out receipt.json"))
        keys = stepgrant(project, *readme("stepgrant ledger keys --out keys.json"))
        assert (got.returncode, keys.returncode) == (0, 0)
    verified = stepgrant(project, *readme("stepgrant receipt verify receipt.json --key keys.json"))
    assert (verified.returncode, "It is complete" in verified.stdout) == (0, True)
    checked = stepgrant(project, "ledger", "verify", STEPGRANT_BROKER_DATA_DIR=".stepgrant")
    assert (checked.returncode, "The ledger holds" in checked.stdout) == (0, True)


def test_it_prints_what_an_agent_needs_and_reloads_policy_loudly(project: Path, tmp_path: Path) -> None:
    settings = project / "policy" / "stepgrant_config" / "data.json"
    good = settings.read_text(encoding="utf-8")
    with started(project, tmp_path / "dev.log", *dev()) as broker:
        broker.wait_for("Ctrl-C ends it")
        key = Path(broker.wait_for("export STEPGRANT_WORKLOAD_KEY=(.*)")[1])
        url = broker.wait_for("export STEPGRANT_URL=(.*)")[1]
        client = project / ".stepgrant" / "operator.json"
        known = json.loads(client.read_text(encoding="utf-8"))
        assert known["url"] == url
        assert {path.stat().st_mode & 0o777 for path in (key, client)} == {0o600}
        assert (project / ".stepgrant").stat().st_mode & 0o777 == 0o700
        assert stepgrant(project, "run", "list").stdout == "no runs\n"
        settings.write_text(good.replace('"read"}', '"raed"}'), encoding="utf-8")
        broker.wait_for(r"policy: BROKEN, NOT taken over; 1:[\w-]{8} still decides\n    stepgrant_config/data.json:5")
        settings.write_text(good.replace('"my-agent"', '"other"'), encoding="utf-8")
        broker.wait_for(r"policy: taken over, 2:[\w-]{8} decides from now on; start `stepgrant dev` again to enrol")
        assert stepgrant(project, "policy", "list", "--json").stdout.count("sha-256") == 2
        broker.process.send_signal(signal.SIGINT)
        assert broker.ended() == 0
        assert known["token"] not in broker.text
        assert "Traceback" not in broker.text


def test_key_and_token_stay_until_the_agents_change(project: Path) -> None:
    folder = project / ".stepgrant"
    show = dev("--json", "--", sys.executable, "-c", "")
    assert stepgrant(project, *show).returncode == 0
    before = [(folder / name).read_text(encoding="utf-8") for name in ("workload.json", "operator.json")]
    assert stepgrant(project, *show).returncode == 0
    after = [(folder / name).read_text(encoding="utf-8") for name in ("workload.json", "operator.json")]
    assert after[0] == before[0]
    assert json.loads(after[1])["token"] == json.loads(before[1])["token"]
    changed = stepgrant(project, *dev("--agent", "second", "--", sys.executable, "-c", ""))
    assert "a new workload key" in changed.stderr
    assert (folder / "workload.json").read_text(encoding="utf-8") != before[0]
    assert [path.read_text(encoding="utf-8") for path in folder.glob("workload.json.*.old")] == [before[0]]


def test_the_command_gets_its_environment_and_gives_its_exit_code(tmp_path: Path) -> None:
    script = "import os, sys; print(os.environ['STEPGRANT_URL'], os.environ['STEPGRANT_WORKLOAD_KEY']); sys.exit(7)"
    done = stepgrant(tmp_path, *dev("--agent", "clerk", "--", sys.executable, "-c", script))
    assert done.returncode == 7
    url, key = done.stdout.split()
    assert url.startswith("http://127.0.0.1:")
    assert key == str(tmp_path / ".stepgrant" / "workload.json")
    assert "agents  " in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_command_and_it_ends_first(tmp_path: Path, number: signal.Signals) -> None:
    script = f"""
import signal, sys, time
def said(number, _):
    print("got", number, flush=True)
    time.sleep(0.3)
    print("over", flush=True)
    sys.exit(9)
signal.signal({int(number)}, said)
print("up", flush=True)
while True:
    time.sleep(1)
"""
    with started(tmp_path, tmp_path / "dev.log", *dev("--", sys.executable, "-c", script)) as running:
        running.wait_for(r"(?m)^up$")
        running.process.send_signal(number)
        assert running.ended() == 9
        assert f"got {int(number)}\nover\n" in running.text


def test_no_key_gets_into_the_repository_around_it(tmp_path: Path) -> None:
    """Whoever starts it in a repository and says `git add .` must not publish keys and tokens."""
    git = shutil.which("git") or "git"
    subprocess.run([git, "init", "--quiet", "."], cwd=tmp_path, check=True)
    assert stepgrant(tmp_path, "dev", "--port", "0", "--", sys.executable, "-c", "pass").returncode == 0
    words = [git, "status", "--porcelain", "--untracked-files=all"]
    seen = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert (tmp_path / ".stepgrant" / "keys").is_dir()
    assert seen == ""


def test_what_cannot_be_started_is_one_line(project: Path) -> None:
    missing = stepgrant(project, *dev("--", "no-such-program-anywhere"))
    assert missing.returncode == ExitCode.NOT_FOUND
    assert missing.stderr.endswith("stepgrant: cannot start no-such-program-anywhere: No such file or directory\n")
    nowhere = stepgrant(project, "dev", "--policy", "nowhere")
    assert (nowhere.returncode, nowhere.stderr) == (ExitCode.NOT_FOUND, "stepgrant: there is no folder nowhere\n")
    (project / "policy" / "stepgrant" / "decision.rego").write_text("package stepgrant\n\nbroken(", encoding="utf-8")
    broken = stepgrant(project, *dev())
    assert (broken.returncode, broken.stderr.count("\n")) == (ExitCode.REFUSED, 1)
    assert "does_not_compile" in broken.stderr


def test_port_that_is_taken_is_told(project: Path, tmp_path: Path) -> None:
    with started(project, tmp_path / "dev.log", *dev()) as first:
        port = first.wait_for(r"broker at http://127\.0\.0\.1:(\d+)")[1]
        second = stepgrant(project, "dev", "--port", port)
    assert second.returncode == ExitCode.USAGE
    said = f"port {port} is taken, perhaps by another `stepgrant dev`: end that one, or name another with --port"
    assert second.stderr == f"stepgrant: {said}\n"


def test_folder_in_which_others_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".stepgrant").mkdir()
    (tmp_path / ".stepgrant").chmod(0o777)
    done = stepgrant(tmp_path, *dev("--", "true"))
    assert (done.returncode, "chmod 700" in done.stderr) == (ExitCode.USAGE, True)
    assert list((tmp_path / ".stepgrant").iterdir()) == []
