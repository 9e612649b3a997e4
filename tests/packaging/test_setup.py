"""`make` on a bare machine: which Python it takes, and what it says where it finds none that will do."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Answers the two questions that the Makefile asks (new enough? has venv?), then writes down that it was taken.
FAKE = """#!/bin/sh
case "$2" in
  *version_info*) exit {old} ;;
  *ensurepip*) exit {bare} ;;
esac
mkdir -p "$3/bin" && echo {name} > "$3/bin/python"
"""


def make(folder: Path, pythons: dict[str, tuple[int, int]], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run make for the environment only, with nothing but `pythons` (name -> old, bare) and the shell's own tools."""
    tools = folder / "tools"
    tools.mkdir()
    for tool in ("make", "sh", "mkdir"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    for name, (old, bare) in pythons.items():
        (tools / name).write_text(FAKE.format(old=old, bare=bare, name=name), encoding="utf-8")
        (tools / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    command = [str(tools / "make"), ".venv/bin/python", *arguments]
    environment = {"PATH": str(tools)}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3.13": (0, 0), "python3.11": (0, 0), "python3": (0, 0)}, "python3.13"),
        ({"python3.13": (1, 0), "python3.12": (0, 0)}, "python3.12"),  # a shim that starts nothing
        ({"python3.13": (0, 1), "python3": (0, 0)}, "python3"),  # one without venv beside one that has it
        ({"python3": (0, 0)}, "python3"),
    ],
)
def test_takes_the_first_python_that_will_do(tmp_path: Path, pythons: dict[str, tuple[int, int]], taken: str) -> None:
    done = make(tmp_path, pythons)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv" / "bin" / "python").read_text(encoding="utf-8").strip() == taken


@pytest.mark.parametrize(
    ("pythons", "advice"),
    [
        ({"python3.11": (0, 1), "python3": (1, 1)}, "python3.11 lacks venv"),
        ({"python3": (1, 0)}, "Python 3.11 or newer is needed"),
        ({}, "Python 3.11 or newer is needed"),
    ],
)
def test_says_in_one_line_what_to_install(tmp_path: Path, pythons: dict[str, tuple[int, int]], advice: str) -> None:
    done = make(tmp_path, pythons)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make:")]

    assert done.returncode != 0
    assert len(lines) == 1
    assert lines[0].startswith(advice)
    assert "apt-get install" in lines[0]
    assert not (tmp_path / ".venv").exists()


def test_python_can_be_named(tmp_path: Path) -> None:
    done = make(tmp_path, {"python3.13": (0, 0), "mine": (0, 0)}, "PYTHON=mine")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv" / "bin" / "python").read_text(encoding="utf-8").strip() == "mine"


def test_help_has_a_line_for_every_promised_target() -> None:
    make_program = shutil.which("make")
    assert make_program is not None
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([make_program, "help"], cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    told = re.findall(r"^ +make ([a-z-]+) {2,}\S", done.stdout, re.MULTILINE)

    assert {"help", "setup", "demo", "test", "check", "bench", "mutants", "lock", "fmt", "clean"} <= set(told)
    assert {"test-all", "services-provision", "services-up", "services-down", "services-status"} <= set(told)
    assert len(told) == len(done.stdout.splitlines())


def ci_run(folder: Path, *, check: int, test: int) -> "subprocess.CompletedProcess[str]":
    """Run .ci/run with a Makefile whose two targets print what they saw and end with the given codes."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    closing = "===== 2 failed, 3 passed in 1.20s ====="
    recipes = f"check:\n\t@exit {check}\ntest:\n\t@echo CI is $$CI\n\t@echo '{closing}'; exit {test}\n"
    (folder / "Makefile").write_text(recipes, encoding="utf-8")
    command = [str(folder / ".ci" / "run")]
    # Without the MAKE* settings of a `make test` around us, which would add lines.
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, cwd="/", env=environment, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("test", [0, 1])
def test_ci_ends_with_the_closing_line_of_pytest(tmp_path: Path, test: int) -> None:
    done = ci_run(tmp_path, check=0, test=test)

    assert done.stdout.splitlines()[0] == "CI is true"
    assert done.stdout.splitlines()[-1] == "===== 2 failed, 3 passed in 1.20s ====="
    assert bool(done.returncode) == bool(test)


def test_ci_stops_at_a_failed_check(tmp_path: Path) -> None:
    done = ci_run(tmp_path, check=1, test=0)

    assert done.stdout == ""
    assert done.returncode != 0
