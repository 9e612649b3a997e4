"""`stepgrant policy build`, and the choice of the engine where there is no OPA or one that is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commandline import Done, caller
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.commands.cmd_init import scaffold
from stepgrant_broker.policy.bundle import read_directory
from stepgrant_broker.policy.opa_bundle import opa_bundle
from stepgrant_broker.policy.rego import ENGINE

Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys, [])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a policy as the current folder, and no OPA on the PATH."""
    for name, data in scaffold().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def test_it_writes_what_the_broker_would_activate(run: Run, folder: Path) -> None:
    out = folder / "out.tar.gz"
    done = run("policy", "build", "policy", "-o", str(out), "--json")
    bundle = read_directory(folder / "policy")
    assert out.read_bytes() == opa_bundle(bundle)
    assert done.json == {
        "policy": "policy",
        "file": str(out),
        "revision": bundle.digest,
        "bytes": len(out.read_bytes()),
    }
    assert bundle.digest in run("policy", "build", "-o", str(out)).out


def test_a_policy_with_findings_is_not_built_and_the_old_file_stays(run: Run, folder: Path) -> None:
    out = folder / "out.tar.gz"
    out.write_bytes(b"old")
    (folder / "policy/stepgrant/bad.rego").write_text("package stepgrant.rules.bad\n\ndeny contains 1 if input.no\n")
    done = run("policy", "build", "-o", str(out))
    assert done.code == ExitCode.REFUSED
    assert "not built: " in done.err
    assert out.read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_named(run: Run, folder: Path) -> None:
    done = run("policy", "build", "-o", str(folder / "missing" / "out.tar.gz"))
    assert done.code == ExitCode.USAGE
    assert "cannot write" in done.err
    assert [path.name for path in folder.iterdir() if path.name.startswith(".out")] == []


@pytest.mark.usefixtures("folder")
def test_without_opa_the_embedded_engine_answers_and_says_so(run: Run) -> None:
    assert f"checked by {ENGINE}\n" in run("policy", "check").out
    assert f"; answered by {ENGINE}\n" in run("policy", "test").out
    assert run("policy", "test", "--json").json["engine"] == ENGINE
    assert run("policy", "check", "--json", "--engine", "embedded").json["engine"] == ENGINE


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("verb", ["check", "test"])
def test_opa_that_is_asked_for_must_be_there(run: Run, verb: str) -> None:
    done = run("policy", verb, "--engine", "opa")
    assert "there is no opa: put it on the PATH, or name it in STEPGRANT_OPA" in done.err
    assert done.code != 0


@pytest.mark.parametrize("verb", ["check", "test"])
def test_a_name_of_no_program_is_an_error_and_not_the_other_engine(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("STEPGRANT_OPA", str(folder / "missing"))
    done = run("policy", verb)
    assert done.code == ExitCode.USAGE
    assert "STEPGRANT_OPA names no program" in done.err


def test_a_program_that_is_not_opa_is_named(run: Run, folder: Path) -> None:
    program = folder / "bin/opa"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    assert "does not say its version; is it OPA?" in run("policy", "check").err
