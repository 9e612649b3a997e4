"""Every way to fail is one line and a documented code; help is quick and complete."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from commandline import Done
from desk import Desk
from stepgrant.cli import app, main, output, people, running
from stepgrant.cli.exits import ExitCode

Run = Callable[..., Done]


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of ours with its path."""

    def walk(path: str, command: object) -> Iterator[tuple[str, Any]]:
        below = getattr(command, "commands", None)
        if below is None:
            yield path, command
        for name, one in (below or {}).items():
            yield from walk(f"{path} {name}", one)

    yield from walk("stepgrant", get_command(app.build()))


def test_every_command_says_what_it_does_and_shows_an_example_of_itself() -> None:
    found = dict(commands())
    assert len(found) > 20
    for path, command in found.items():
        assert command.help, path
        assert path in command.epilog, path
        assert "--json" in {name for one in command.params for name in one.opts}, path


def test_the_branch_of_one_word_is_the_same_as_in_the_whole_tree() -> None:
    def shape(command: object) -> object:
        below = getattr(command, "commands", None)
        if below is not None:
            return {name: shape(one) for name, one in below.items()}
        return [(one.name, one.opts, one.required) for one in vars(command)["params"]]

    whole = shape(get_command(app.build()))
    assert isinstance(whole, dict)
    assert {word: shape(get_command(app.build([word, "--help"]))) for word in whole} == {
        word: {word: branch} for word, branch in whole.items()
    }
    assert all(shape(get_command(app.build(words))) == whole for words in (["--json", "run"], ["rum"], []))


def test_token_is_no_option_anywhere() -> None:
    for path, command in commands():
        names = {name for one in command.params for name in one.opts}
        assert not {"--token", "--value", "--secret", "--password"} & names, path


def test_every_help_can_be_printed(run: Run) -> None:
    for path, _ in commands():
        done = run(*path.split()[1:], "--help")
        assert done.code == 0
        assert "Example:" in done.out


def test_group_without_a_command_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["run"]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert printed.out.startswith("Usage: stepgrant run")
    assert printed.err == ""


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.out) == (0, "stepgrant 0.1.0\n")


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["run", "nonsense"], ["run", "list", "--nonsense"], ["run", "list", "--limit", "many"],
     ["run", "list", "--limit", "0"], ["run", "list", "--state", "asleep"], ["run", "cancel"], ["step", "show", "x"],
     ["run", "list", "--token", "sgo_x"], ["step", "reconcile", "r", "s", "maybe"]],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_two(run: Run, words: list[str]) -> None:
    done = run(*words)
    assert done.code == ExitCode.USAGE
    assert done.err.startswith("stepgrant: ")
    assert done.out == ""


def test_error_for_machines_is_one_json_object_on_stderr(run: Run, desk: Desk) -> None:
    desk.refuses("GET /v1/runs", 403, "forbidden", "only an operator\ncan")
    done = run("run", "list", "--json")
    assert (done.code, done.out) == (ExitCode.AUTH, "")
    error = json.loads(done.err)["error"]
    assert (error["code"], error["exit"]) == ("forbidden", 4)
    assert "only an operator can" in error["message"]


def test_json_behind_two_dashes_is_not_ours(run: Run) -> None:
    assert run("nonsense", "--", "--json").err.startswith("stepgrant: ")


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [(404, "unknown_run", 3), (401, "invalid_token", 4), (403, "quarantined", 1), (409, "conflict", 6),
     (503, "ledger_unavailable", 5), (500, "internal", 1), (302, "", 1)],
)  # fmt: skip
def test_refusals_of_the_broker(run: Run, desk: Desk, status: int, code: str, wanted: int) -> None:
    desk.refuses("GET /v1/workloads", status, code)
    assert run("workload", "list").code == wanted


def test_hostile_problem_cannot_act_on_the_terminal(run: Run, desk: Desk) -> None:
    desk.refuses("GET /v1/workloads", 409, "conflict", "\x1b[2J\u202eall is well\r\n\r\nstepgrant: done")
    done = run("workload", "list")
    assert done.code == ExitCode.CONFLICT
    assert done.err.rstrip("\n").isprintable()


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"[]", b'{"a":1,"a":2}', b"\xff"])
def test_answer_that_is_no_json_object_is_refused(run: Run, desk: Desk, body: bytes) -> None:
    desk.says("GET /v1/workloads", body)
    done = run("workload", "list")
    assert done.code == ExitCode.REFUSED
    assert "unexpected_answer" in done.err


def test_nobody_listens(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_TOKEN", "sgo_" + "5e" * 32)
    monkeypatch.setenv("STEPGRANT_URL", "http://127.0.0.1:9")
    done = run("run", "list")
    assert done.code == ExitCode.UNAVAILABLE
    said = "no answer from the broker at http://127.0.0.1:9 (ConnectionRefusedError); is it running?"
    assert done.err == f"stepgrant: {said}\n"


def test_token_is_sent_to_no_other_address(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/workloads", {}, 302, location=f"{desk.url}/v1/elsewhere")
    assert run("workload", "list").code == ExitCode.REFUSED
    assert desk.calls() == ["GET /v1/workloads"]


def test_proxies_of_the_environment_are_not_used(run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    desk.says("GET /v1/workloads", {"workloads": []})
    assert run("workload", "list").code == 0


def test_endless_answer_is_cut(run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "MAX_ANSWER_BYTES", 10)
    desk.says("GET /v1/workloads", {"workloads": ["x" * 100]})
    assert json.loads(run("workload", "list", "--json").err)["error"]["code"] == "answer_too_large"


def test_defect_is_one_line_without_its_text(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/workloads", {"workloads": [{"sgo_secret": 1}]})
    done = run("workload", "list")
    assert done.code == ExitCode.DEFECT
    assert "KeyError at cmd_workloads.py:" in done.err
    assert "sgo_secret" not in done.err


def test_part_that_is_not_installed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: Sequence[str]) -> object:
        raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn.main")

    monkeypatch.setattr(app, "build", missing)
    assert running.run(["serve"]) == ExitCode.USAGE
    said = "this needs the broker on this machine: pip install 'stepgrant[broker,embedded]' (missing: uvicorn)"
    assert capsys.readouterr().err == f"stepgrant: {said}\n"


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_without_the_extra_there_is_one_readable_line(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main.main(["run", "list"]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert printed.err == "stepgrant: the command line needs one more part: pip install 'stepgrant[cli]'\n"
    assert printed.out == ""


def test_another_missing_module_is_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(main, "NEEDED", frozenset({"typer"}))
    with pytest.raises(ModuleNotFoundError):
        main.main(["run", "list"])


def test_broken_extension_leaves_our_commands_working(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point = importlib.metadata.EntryPoint("other", "no_such_module_anywhere:register", app.ENTRY_POINTS)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: (point,))
    assert main.main(["--version"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "stepgrant 0.1.0\n"
    assert printed.err == (
        "stepgrant: the commands of no_such_module_anywhere:register are not available (ModuleNotFoundError)\n"
    )


def shell(folder: Path, *words: str, script: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    program = script or "import sys; from stepgrant.cli.main import main; sys.exit(main())"
    known = {name: value for name, value in os.environ.items() if not name.startswith("STEPGRANT_")}
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(
        command, cwd=folder, env=known | environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_help_loads_neither_screen_nor_network(tmp_path: Path) -> None:
    script = (
        "import sys; from stepgrant.cli.main import main; code = main(['--help']);"
        "print(sorted({'httpx', 'cryptography', 'rich.console', 'fastapi', 'uvicorn', 'regorus'} & set(sys.modules)))"
    )
    assert shell(tmp_path, script=script).stdout.endswith("\n[]\n")


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = (
        "import os, sys; from stepgrant.cli.main import main; r, w = os.pipe(); os.close(r); os.dup2(w, 1);"
        "sys.exit(main(['run', '--help']))"
    )
    done = shell(tmp_path, script=script)
    assert (done.returncode, done.stderr) == (0, "")


def test_colours_only_where_a_person_looks(run: Run, desk: Desk) -> None:
    desk.says("GET /v1/secrets", {"secrets": [{"name": "crm", "hosts": ["h" * 300], "header": "X", "set_at": 0}]})
    printed = run("secret", "list").out
    assert "\x1b" not in printed
    assert "h" * 300 in printed
    assert printed.splitlines()[0].split() == ["name", "hosts", "header", "set"]


def test_question_needs_a_person(run: Run, desk: Desk) -> None:
    done = run("secret", "remove", "crm")
    assert (done.code, desk.sent) == (ExitCode.USAGE, [])
    assert "--yes" in done.err


class _Terminal:
    """Stdin of a person who types these lines."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise io.UnsupportedOperation

    def readline(self) -> str:
        return self._lines.pop(0)


@pytest.mark.parametrize(
    ("typed", "goes_on"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_a_clear_yes_is_one(
    typed: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal(typed))
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    out = output.Output()
    if goes_on:
        out.confirm("Sure?", yes=False)
    else:
        with pytest.raises(Exception, match="nothing was changed") as caught:
            out.confirm("Sure?", yes=False)
        assert getattr(caught.value, "code", "") == "aborted"
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Sure? [y/N] ")
