"""What is started is killed with its starter, at whatever moment the starter dies: of the demo and of the rehearsal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes import gone
from stepgrant_broker.demo.processes import Processes

PATIENCE_S = 60.0
COMMAND = "import sys, time; from pathlib import Path; Path(sys.argv[1]).touch(); time.sleep(600)"
STARTERS = {
    "demo": "from stepgrant_broker.demo.processes import Processes\n"
    "with Processes(folder) as ours:\n"
    "    ours.start('child', command, os.environ)\n"
    "    time.sleep(600)\n",
    "rehearsal": "from stepgrant_broker.commands.rehearse.lives import Lives\n"
    "with Lives() as ours:\n"
    "    ours.start(command, os.environ, folder, folder / 'log')\n"
    "    time.sleep(600)\n",
}
DIES = {
    "before the reaper knows": "def started(self, pid):\n"
    "    print(pid, flush=True)\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
    "Reaper.started = started\n",
    "before it is let go": "tell = Reaper.started\n"
    "def started(self, pid):\n"
    "    tell(self, pid)\n"
    "    print(pid, flush=True)\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
    "Reaper.started = started\n",
}
"""The starter ends itself at a moment that nobody outside could hit: the failpoint is in the test's own program."""


@pytest.mark.parametrize("dies", DIES)
@pytest.mark.parametrize("starter", STARTERS)
def test_a_process_whose_starter_dies_before_it_is_let_go_ends_and_has_done_nothing(
    tmp_path: Path, starter: str, dies: str
) -> None:
    done = tmp_path / "done"
    program = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from stepgrant_broker.demo.held import Reaper\n"
        f"{DIES[dies]}folder, command = Path(sys.argv[1]), sys.argv[2:]\n{STARTERS[starter]}"
    )
    command = [sys.executable, "-c", COMMAND, str(done)]
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *command],
        stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert said.returncode == -signal.SIGKILL
    pid = int(said.stdout)

    try:
        deadline = time.monotonic() + PATIENCE_S
        while not gone(pid):
            assert time.monotonic() < deadline, "the process outlived its starter"
            time.sleep(0.05)
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        raise
    assert not done.exists()


def test_what_is_said_to_a_process_comes_after_what_lets_it_go(tmp_path: Path) -> None:
    with Processes(tmp_path) as ours:
        child = ours.start("echo", [sys.executable, "-c", "print('heard', input(), flush=True)", "last"], os.environ)
        child.tell("go on")
        assert child.wait_line("heard", PATIENCE_S) == "heard go on"
        assert child.arguments == ["-c", "print('heard', input(), flush=True)", "last"]
