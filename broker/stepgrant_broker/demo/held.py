"""Processes that do nothing before the reaper knows of them, so that no kill -9 of their starter leaves one behind.

Between a start and the word to the reaper the starter can be killed. So what is started waits for a line on its
standard input; the starter lets it go once the reaper knows it. Who is killed before never writes the line: its end of
the pipe closes, and what waits there ends by itself without having become the command.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import Any, Final

from stepgrant_broker.demo import reaper

HELD: Final = ("/bin/sh", "-c", 'read -r _ || exit 125; exec "$@"', "sh")
"""Waits for a line, which an ended starter never writes, and becomes the command that follows.

A shell reads a pipe byte by byte, so what comes after that line is the command's.
"""
END_S: Final = 8.0


def let_go(process: subprocess.Popen[Any]) -> None:
    """Let a process that was started with `HELD` become its command. Its input stays open."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # it was killed meanwhile
            os.write(process.stdin.fileno(), b"\n")


class Reaper:
    """The process that outlives this one, and then kills what was started and not waited for. Close it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this Python, our own file
            [sys.executable, "-I", "-S", str(reaper.__file__)], stdin=subprocess.PIPE, bufsize=0, start_new_session=True
        )

    def started(self, pid: int) -> None:
        """From now on it kills this one. Raises BrokenPipeError if it is gone."""
        self._tell(f"+{pid}\n")

    def waited(self, pid: int) -> None:
        """The pid may be somebody else's from now on. Raises BrokenPipeError if it is gone."""
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """Let it end, and wait for that. It kills what was not waited for."""
        if self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(END_S)

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line.encode())
