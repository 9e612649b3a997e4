"""The folder in memory where a run writes: its own, gone when all passed, and never taken from a run that goes on."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import scratch

ROOT = Path(__file__).parents[2]
SOURCE = """
import tempfile
from pathlib import Path

def test_where(tmp_path):
    print(f"it is {Path(tempfile.gettempdir())} for {tmp_path}")
"""


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scratch, "MEMORY", tmp_path)
    return tmp_path


def test_a_folder_is_held_until_its_run_is_over(memory: Path) -> None:
    mine, lock = scratch.claim()
    other, others = scratch.claim()
    os.close(others)  # as the kernel does when a process ends, however that was
    (other / "left").mkdir()
    scratch.forget_others()
    assert list(memory.iterdir()) == [mine]
    os.close(lock)


def test_another_user_can_pass_through_it_and_not_look_into_it() -> None:
    folder, lock = scratch.claim()
    os.close(lock)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711


@pytest.mark.parametrize(("passed", "there"), [(True, False), (False, True), (None, True)])
def test_what_failed_can_be_looked_at(passed: bool | None, there: bool) -> None:  # noqa: FBT001
    folder, lock = scratch.claim()
    stash = pytest.Stash()
    if passed is not None:
        stash[scratch.PASSED] = passed
    scratch.leave(folder, lock, stash)
    assert folder.exists() is there
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lock)


def test_no_memory_no_folder(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY", memory / "nothing")
    assert not scratch.has_room()


@pytest.mark.parametrize("said", ["", "TMPDIR", "PYTEST_DEBUG_TEMPROOT", "--basetemp", "worker"])
def test_tests_write_there_unless_somebody_said_where(said: str, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "PYTEST_DEBUG_TEMPROOT"):
        monkeypatch.setenv(name, "/elsewhere" if name == said else "")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(scratch, "has_room", lambda: True)
    config = SimpleNamespace(
        option=SimpleNamespace(basetemp="/elsewhere" if said == "--basetemp" else None), stash=pytest.Stash()
    )
    if said == "worker":
        config.workerinput = {}
    scratch.pytest_configure(cast("pytest.Config", config))
    assert [str(one) for one in memory.iterdir()] == ([] if said else [tempfile.gettempdir()])
    assert os.environ["TMPDIR"] == ("/elsewhere" if said == "TMPDIR" else "" if said else tempfile.gettempdir())


def test_a_run_leaves_nothing_there(memory: Path) -> None:
    """Whether it found room or not. With the repository's own settings."""
    probe = memory / "test_probe.py"
    probe.write_text(SOURCE)
    command = [str(Path(sys.executable).parent / "pytest"), "-s", "-c", str(ROOT / "pyproject.toml"), "-p", "scratch"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "TMPDIR": ""}
    done = subprocess.run(
        [*command, str(probe)], cwd=memory, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    (line,) = [one for one in done.stdout.splitlines() if "it is " in one]
    place, folder = line.partition("it is ")[2].split(" for ")
    assert folder.startswith(place)
    assert not (Path(place).name.startswith(scratch.PREFIX) and Path(place).exists())
