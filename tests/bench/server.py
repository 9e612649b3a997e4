"""A server script of ours as a process that ends with our end of its pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent


@dataclass
class Child:
    """A server process and what it said when it was ready."""

    process: subprocess.Popen[str]
    said: dict[str, str]

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.said["url"]

    def ask(self) -> dict[str, str]:
        """Send a line, read a line."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("no pipes")
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, str] = json.loads(self.process.stdout.readline())
        return answer


@contextmanager
def child(script: str, *arguments: str) -> Iterator[Child]:
    """Start one of our server scripts; it ends with our end of the pipe."""
    command = [sys.executable, str(HERE / script), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("no pipes")
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{script} did not start")
        yield Child(process, json.loads(line))
        process.stdin.close()
