"""Where the broker's process works: one CPU at a time, and another one when others crowd it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepgrant_broker.config import explicit_settings
from stepgrant_broker.wiring.near_disk import near_disk
from stepgrant_broker.wiring.one_cpu import Look, better, home_of, idle_of

STAT = """cpu  900 0 300 5000 200 0 0 0 0 0
cpu0 400 70 100 3000 150 0 0 0 0 0
cpu12 500 0 200 2000 50 0 0 0 0 0
intr 1234 5 6
cpufreq 7
"""


def looks(idle: dict[int, float], own: float) -> tuple[Look, Look]:
    """Two looks, ten seconds apart, in which each CPU was idle for so long."""
    return Look(100, dict.fromkeys(idle, 50.0), 3.0), Look(110, {n: 50 + s for n, s in idle.items()}, 3.0 + own)


def test_idle_is_read_with_what_waits_for_a_disk_or_makes_room() -> None:
    assert idle_of(STAT, 100) == {0: 32.2, 12: 20.5}
    assert idle_of(STAT, 100, patient=True) == {0: 31.5, 12: 20.5}


@pytest.mark.parametrize(
    ("here", "idle", "own", "to"),
    [
        (None, {0: 2.0, 1: 7.0, 2: 5.0}, 0.0, 1),
        (0, {0: 0.5, 1: 9.0}, 9.4, None),  # all of it is our own work
        (0, {0: 0.5, 1: 9.0}, 5.0, 1),  # others take half
        (0, {0: 0.5, 1: 2.0}, 5.0, None),  # but it is not better there
        (0, {0: 6.0, 1: 10.0}, 2.0, None),  # others take a fifth: not worth a move
        (3, {0: 2.0, 1: 8.0}, 1.0, 1),  # ours is gone
    ],
)
def test_a_move_has_to_be_worth_it(here: int | None, idle: dict[int, float], own: float, to: int | None) -> None:
    assert better(here, *looks(idle, own)) == to


@pytest.mark.parametrize(
    ("here", "idle", "own", "to"),
    [
        (None, {0: 9.0, 1: 7.0}, 0.0, 1),  # a little less idle, but it hears the disk
        (None, {0: 9.9, 1: 7.0}, 0.0, 0),  # others need it too much
        (None, {0: 9.9, 1: 5.0}, 4.0, 1),  # what keeps it busy may have been ourselves
        (None, {0: 9.9, 2: 9.0}, 0.0, 0),  # it is not ours to use
        (0, {0: 5.0, 1: 8.0}, 5.0, 1),  # the way back: others left it
        (0, {0: 5.0, 1: 7.0}, 5.0, None),  # not yet
        (1, {0: 10.0, 1: 1.0}, 5.0, 0),  # crowded out of it
        (1, {0: 10.0, 1: 1.0}, 9.0, None),
    ],
)
def test_the_cpu_that_hears_the_disk_is_the_one_to_prefer(
    here: int | None, idle: dict[int, float], own: float, to: int | None
) -> None:
    assert better(here, *looks(idle, own), near={1}) == to


def test_whose_disk_it_is() -> None:
    """PostgreSQL waits for its own; and who wants no home has none."""
    folder = Path(__file__).parent  # on a disk, if anything is
    embedded = home_of(explicit_settings(data_dir=folder))
    beside = home_of(explicit_settings(data_dir=folder, database_url="postgresql://u@127.0.0.1/x"))
    assert embedded is not None
    assert beside is not None
    assert (embedded.near, beside.near) == (near_disk(folder), frozenset())
    assert home_of(explicit_settings(data_dir=folder, one_cpu=False)) is None


def test_nothing_is_said_where_nothing_is_seen() -> None:
    assert better(None, Look(100, {}, 0), Look(110, {}, 0)) is None
    assert better(None, Look(100, {0: 1}, 0), Look(100, {0: 1}, 0)) is None


PROGRAM = """
import asyncio, json, os, subprocess, sys, threading
from stepgrant_broker.wiring.logs import configure_logs
from stepgrant_broker.wiring.near_disk import near_disk
from stepgrant_broker.wiring.one_cpu import OneCpu, together

configure_logs(level="error")

def where(tasks):
    return [[*sorted(os.sched_getaffinity(task)), os.sched_getscheduler(task)] for task in tasks]

async def main():
    ended = threading.Event()
    threads = [threading.Thread(target=ended.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    os.sched_setscheduler(threads[0].native_id, os.SCHED_IDLE, os.sched_param(0))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    home = OneCpu() if sys.argv[1] == "together" else None
    await asyncio.sleep(0.05)
    async with together(home):
        later = threading.Thread(target=ended.wait)
        later.start()
        found = where([0, child.pid, *(thread.native_id for thread in (*threads, later))])
    print(json.dumps({"here": None if home is None else home.here, "found": found}))
    os.sched_setscheduler(threads[0].native_id, os.SCHED_OTHER, os.sched_param(0))
    ended.set()
    child.communicate(b"\\n")

asyncio.run(main())
"""


def outcome(how: str) -> dict[str, object]:
    """What a process of its own says: it changes where it works."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    told: dict[str, object] = json.loads(done.stdout)
    return told


def scheduled(usual: int) -> list[int]:
    """The process, its child and its threads; for the first thread somebody chose another policy before."""
    return [usual, usual, os.SCHED_IDLE, usual, usual, usual]


def test_all_threads_and_children_work_on_one_cpu_and_a_policy_that_was_chosen_stays() -> None:
    told = outcome("together")
    assert told["here"] in os.sched_getaffinity(0)
    assert told["found"] == [[told["here"], policy] for policy in scheduled(os.SCHED_BATCH)]


def test_without_it_they_work_where_they_may() -> None:
    everywhere = sorted(os.sched_getaffinity(0))
    found = [[*everywhere, policy] for policy in scheduled(os.SCHED_OTHER)]
    assert outcome("apart") == {"here": None, "found": found}
