"""What is judged in reference seconds is the work, not the machine and not the process that asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from yardstick import REFERENCE_S, reference_seconds

WORK = "import time, yardstick\ndef work():\n    {}\nyardstick.report(work)\n"
TWICE = WORK.format("yardstick.measure(); yardstick.measure()")
COUNTED = "import sys\nwith open(sys.argv[1], 'a') as log: log.write('.')\n"


def test_work_is_told_by_the_yardstick() -> None:
    """Two rounds of the yardstick are two rounds, however fast the machine is."""
    limit = 3 * REFERENCE_S
    assert REFERENCE_S < reference_seconds(TWICE, below=limit) < limit


def test_waiting_is_not_work() -> None:
    assert reference_seconds(WORK.format("time.sleep(0.5)"), below=REFERENCE_S) < REFERENCE_S


def test_the_first_try_that_holds_ends_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    reference_seconds(COUNTED + TWICE, str(log), below=float("inf"))
    assert log.read_text() == "."


def test_work_that_is_too_much_is_too_much_at_each_try(tmp_path: Path) -> None:
    log, limit = tmp_path / "log", REFERENCE_S / 2
    assert reference_seconds(COUNTED + TWICE, str(log), below=limit, tries=2) > limit
    assert log.read_text() == ".."


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        reference_seconds(WORK.format("1 / 0"), below=1)
