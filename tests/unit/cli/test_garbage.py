"""A command's own process looks for no garbage while it loads and at its end; another process is left as it is."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from stepgrant.cli import garbage

PROGRAM = """
import gc, sys
from stepgrant.cli import garbage
from stepgrant.cli.main import main
gc.set_threshold(700, 10, 10)
gc.collect()  # else a look that is due already may come later
frozen, seen = gc.get_freeze_count(), []  # Python 3.12 begins with some
{before}
assert main({arguments}) == 0
print(seen, gc.get_threshold(), gc.get_freeze_count() > frozen, file=sys.stderr)
garbage.loaded()
print(gc.get_threshold(), gc.get_freeze_count() > frozen, file=sys.stderr)
"""
WATCHED = "gc.callbacks.append(lambda phase, about: seen.append(about['generation']) if phase == 'start' else None)"


def told(arguments: str, *words: str) -> list[str]:
    program = PROGRAM.format(arguments=arguments, before=WATCHED)
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "stepgrant 0.1.0\n"
    return done.stderr.splitlines()


def test_its_own_process_collects_nothing_until_it_has_loaded_and_ends_without_taking_apart() -> None:
    assert told("", "--version") == [f"[] ({garbage.LOADING}, 10, 10) True", "(700, 10, 10) True"]


def test_a_callers_process_stays_as_it_is() -> None:
    first, second = told("['--version']")
    assert first.endswith("] (700, 10, 10) False")
    assert second == "(700, 10, 10) False"


def test_a_broker_that_serves_looks_for_garbage_as_usual(tmp_path: Path) -> None:
    program = "from stepgrant.cli.main import main; main(); print(gc.get_threshold())"
    command = [
        sys.executable,
        "-c",
        f"import gc; gc.set_threshold(700, 10, 10); {program}",
        "dev",
        "--port",
        "0",
        "--",
        sys.executable,
        "-c",
        "",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "(700, 10, 10)\n"


@pytest.mark.parametrize("call", [garbage.loaded, garbage.end])
def test_this_process_is_no_commands_own(call: object) -> None:
    assert callable(call)
    before = gc.get_freeze_count()
    call()
    assert gc.get_freeze_count() == before
