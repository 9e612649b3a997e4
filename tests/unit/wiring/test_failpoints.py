"""Failpoints: off they do nothing; on they do what the text says, where and when it says."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from stepgrant_broker.wiring.failpoints import FailpointHit, NoFailpoints, parse


def test_off_nothing_happens() -> None:
    NoFailpoints().hit("store.before_commit")


def test_a_point_raises_at_its_hit_only() -> None:
    points = parse("usecase.before_mint@2=raise, store.before_commit=sleep:1")
    points.hit("usecase.before_mint")
    with pytest.raises(FailpointHit, match="before_mint"):
        points.hit("usecase.before_mint")
    points.hit("usecase.before_mint")
    points.hit("somewhere.else")


def test_a_point_without_a_number_acts_each_time() -> None:
    points = parse("a.b=raise")
    for _ in range(3):
        with pytest.raises(FailpointHit):
            points.hit("a.b")


def test_a_point_delays() -> None:
    points = parse("a.b=sleep:30")
    started = time.monotonic()
    points.hit("a.b")
    assert time.monotonic() - started >= 0.03


def test_a_point_kills_the_process_without_a_word() -> None:
    code = "from stepgrant_broker.wiring.failpoints import parse; parse('a.b=kill').hit('a.b'); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


@pytest.mark.parametrize("text", ["a.b", "a.b=explode", "a.b=sleep", "a.b@0=kill", "A=kill", "a.b=kill;c=kill"])
def test_what_is_no_failpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not point=kill"):
        parse(text)
