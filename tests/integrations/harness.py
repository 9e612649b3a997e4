"""A harness for frameworks: its program is forked from a nursery, life after life."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stepgrant.testing import Lived

FOLDER = Path(__file__).parent


@dataclass
class Nursed:
    """Fulfils `stepgrant.testing.Harness`."""

    name: str
    edits: bool
    tells_errors: bool
    program: str
    words: Sequence[str]
    nursery: subprocess.Popen[str]
    folder: Path
    number: int = 0

    def live(self, environment: Mapping[str, str]) -> Lived:
        """One life."""
        self.number += 1
        out, err = (self.folder / f"{self.name}-{self.number}.{kind}" for kind in ("out", "err"))
        said = {"environment": dict(environment), "program": self.program, "words": list(self.words)}
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(json.dumps({**said, "out": str(out), "err": str(err)}) + "\n")
        self.nursery.stdin.flush()
        code = json.loads(self.nursery.stdout.readline())["code"]
        return Lived(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


@contextmanager
def nursery(*imports: str) -> Iterator[subprocess.Popen[str]]:
    """A nursery that has imported these; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / "nursery.py"), *imports],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(name for name in [*sys.path, str(FOLDER)] if name)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
