"""Soaking itself: slices go on where they were interrupted, and what breaks is told with its replay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from soak.__main__ import main, soak_one
from soak.kinds import KINDS, Kind
from soak.results import Record, commit, replays, table
from soak.slices import replay_here, run_apart

SAMPLE: Final = """
import os, time
from soak import result as soak

def slice(seed, size):
    for number in range(size):
        soak.progress(number + 1)
    if seed == 3:
        raise RuntimeError("seed three breaks")
    if seed == 4:
        print(os.getpid(), file=open(os.environ["SAMPLE_PID"], "w"), flush=True)
        time.sleep(600)
    return soak.Result({"things": size}, ["nine is bad"] if seed == 2 else [], {"worst": float(seed)})

def replay(name):
    return soak.Result({"named": 1}, [name])
"""


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    (tmp_path / "soak_sample.py").write_text(SAMPLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Kind("soak_sample", total=10, size=4, unit="things")


def forever() -> float:
    return time.monotonic() + 1000


def test_slices_go_on_where_they_were_interrupted(
    sample: Kind, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = Record.resumed(tmp_path, "abc", "sample", sample, 4)
    soak_one(first, sample, end=forever(), folder=tmp_path)
    again = Record.resumed(tmp_path, "abc", "sample", sample, 8)
    assert again.slices == first.slices
    soak_one(again, sample, end=forever(), folder=tmp_path)
    assert [(one.seed, one.size) for one in again.slices] == [(1, 4), (2, 4)]
    assert Record.resumed(tmp_path, "def", "sample", sample, 8).slices == []

    said = json.loads((tmp_path / "abc-sample.json").read_text())
    assert {name: said[name] for name in ("commit", "done", "total", "violations", "counts", "figures")} == {
        "commit": "abc", "done": 8, "total": 8, "violations": 1, "counts": {"things": 8}, "figures": {"worst": 2.0},
    }  # fmt: skip
    (told,) = replays(again)
    assert told.endswith("nine is bad\n    again: PYTHONPATH=tests .venv/bin/python -m soak replay sample 2:4")
    assert table([again]).splitlines()[1].split() == [
        "sample", "8", "8", "things", "1", "0.0", "8", "things,", "2.0", "worst",
    ]  # fmt: skip
    assert "sample: 8 of 8 things (seed 2: 4 of 4)" in capfd.readouterr().err


def test_no_slice_begins_when_the_time_is_over(sample: Kind, tmp_path: Path) -> None:
    record = Record.resumed(tmp_path, "abc", "sample", sample, 8)
    soak_one(record, sample, end=time.monotonic(), folder=tmp_path)
    assert (record.slices, list(tmp_path.glob("*.json"))) == ([], [])


def test_a_slice_that_breaks_is_a_violation(sample: Kind) -> None:
    done = run_apart(sample, 3, 2, limit_s=60, told=lambda _: None)
    (violation,) = done.violations
    assert violation.startswith("the slice ended with 1: ")
    assert violation.rstrip().endswith("RuntimeError: seed three breaks")


def test_a_slice_that_does_not_end_is_ended(sample: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setenv("SAMPLE_PID", str(pid))
    done = run_apart(sample, 4, 2, limit_s=8, told=lambda _: None)
    assert done.violations == ["the slice did not end within 8 s"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIGCONT)


def test_a_seed_or_a_name_is_replayed_here(sample: Kind) -> None:
    assert replay_here(sample, "2").counts == {"things": 4}
    assert replay_here(sample, "2:9").violations == ["nine is bad"]
    assert replay_here(sample, "point@3=kill").violations == ["point@3=kill"]
    with pytest.raises(ValueError, match="replays seeds only"):
        replay_here(Kind("soak.results", 1, 1, "nothing"), "name")


def test_the_command_line_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["everything"])
    assert "there is no kind everything; there are matrix, " in capsys.readouterr().err


def test_every_kind_can_be_soaked() -> None:
    code = "import importlib, soak.kinds as k; [importlib.import_module(one.module).slice for one in k.KINDS.values()]"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(0 < kind.size <= kind.total for kind in KINDS.values())
    assert commit().removesuffix("-changed")
