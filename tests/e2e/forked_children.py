"""The demo's processes, forked by `faults/forks.py`: for a set that tests build, where no demo is shown."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from faults.forks import Process, spawned
from processes import COMMAND
from stepgrant_broker.demo.held import HELD
from stepgrant_broker.demo.processes import Child, Processes

if TYPE_CHECKING:
    import subprocess

MODULE: Final = (sys.executable, "-m")


@dataclass
class Piped:
    """As much of `subprocess.Popen` as `Child` knows."""

    process: Process
    args: list[str]
    stdin: IO[str]
    stdout: IO[str]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - pid, returncode, poll, wait, send_signal, kill
        return getattr(self.process, name)


class ForkedProcesses(Processes):
    """All processes of one set. As a context manager it leaves none behind."""

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start a program of ours, which is a module or `stepgrant`; what it says goes to its log as well."""
        program, words = _program(command)
        hears, stdin = os.pipe()
        stdout, says = os.pipe()
        try:
            process = spawned(program, *words, environment=environment, stdin=hears, stdout=says, stderr=says)
        finally:
            os.close(hears)
            os.close(says)
        piped = Piped(process, [*HELD, *command], os.fdopen(stdin, "w"), os.fdopen(stdout))
        child = Child(name, cast("subprocess.Popen[str]", piped), self._logs / f"{name}.log")
        self._children.append(child)
        child.listen()
        return child


def _program(command: Sequence[str]) -> tuple[Path, Sequence[str]]:
    """The file of a command, and its words."""
    if tuple(command[:2]) != MODULE:
        assert Path(command[0]).name == "stepgrant"
        return COMMAND, command[1:]
    found = importlib.util.find_spec(command[2])
    assert found is not None
    assert found.origin is not None
    return Path(found.origin), command[3:]
