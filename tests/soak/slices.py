"""One slice in a process of its own: started, watched, and ended with all that it started when it takes too long."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from soak import result as soak
from soak.kinds import Kind

GRACE_S: Final = 30.0


@dataclass(frozen=True)
class Slice:
    """A slice that was run."""

    seed: int
    size: int
    seconds: float
    counts: dict[str, int]
    violations: list[str]
    figures: dict[str, float]


def run_here(kind: Kind, seed: int, size: int) -> soak.Result:
    """The slice, in this process."""
    result: soak.Result = importlib.import_module(kind.module).slice(seed, size)
    return result


def replay_here(kind: Kind, what: str) -> soak.Result:
    """A whole slice by its seed, or one named case of it. Raises `ValueError`."""
    seed, _, size = what.partition(":")
    if seed.isdecimal():
        return run_here(kind, int(seed), int(size or kind.size))
    module = importlib.import_module(kind.module)
    if not hasattr(module, "replay"):
        raise ValueError(f"{kind.module} replays seeds only")
    result: soak.Result = module.replay(what)
    return result


def run_apart(kind: Kind, seed: int, size: int, *, limit_s: float, told: Callable[[int], None]) -> Slice:
    """The slice, in a process of its own. One that breaks or does not end is a violation."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stepgrant-slice-") as folder:
        answer = Path(folder) / "result.json"
        failed = _watched(kind, (seed, size), answer, limit_s, told)
        said: dict[str, Any] = {"counts": {}, "violations": [failed], "figures": {}}
        if not failed:
            said = json.loads(answer.read_text(encoding="utf-8"))
    return Slice(seed, size, round(time.monotonic() - begun, 1), said["counts"], said["violations"], said["figures"])


def _watched(kind: Kind, what: tuple[int, int], answer: Path, limit_s: float, told: Callable[[int], None]) -> str:
    """Run it; why it gave no answer, or nothing."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "soak.slices", json.dumps(asdict(kind)), *map(str, what), str(answer)]
    errors = answer.with_name("errors")
    names = {"SOAK_WATCHER": str(writing), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with errors.open("wb") as log, os.fdopen(reading, encoding="ascii") as lines:
        process = subprocess.Popen(
            command, env={**os.environ, **names}, pass_fds=(writing,), stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        os.close(writing)
        listener = threading.Thread(target=_listen, args=(lines, told), daemon=True)
        listener.start()
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"the slice did not end within {limit_s:.0f} s"
        finally:
            _end(process)
            listener.join(1.0)
    tail = errors.read_text(encoding="utf-8", errors="replace")[-3000:]
    return "" if code == 0 and answer.exists() else f"the slice ended with {code}: {tail}"


def _listen(lines: Iterable[str], told: Callable[[int], None]) -> None:
    for line in lines:
        told(int(line))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, and with it what it started: everything is in its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            return


def main() -> None:
    """Run one slice and write what it came to."""
    kind, seed, size, answer = sys.argv[1:]
    result = run_here(Kind(**json.loads(kind)), int(seed), int(size))
    said = {"counts": dict(result.counts), "violations": list(result.violations), "figures": dict(result.figures)}
    Path(answer).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
