"""A forked program is as one that was started: its own words, environment, folder, descriptors, failpoints and end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from faults.forks import environment, freeze, lived, talking

TELLS: Final = """
import json, os, random, sys
from stepgrant import _failpoints
said = {"name": __name__, "words": sys.argv[1:], "given": os.environ.get("GIVEN"), "environment": len(os.environ),
    "folder": os.getcwd(), "failpoint": _failpoints.on is not None, "random": random.random(), "pid": os.getpid(),
    "open": [number for number in range(3, 64) if os.path.exists(f"/proc/self/fd/{number}")]}
print(json.dumps(said))
"""


def told(folder: Path, *words: str, **given: str) -> dict[str, Any]:
    program = folder / "tells.py"
    program.write_text(TELLS)
    code, out, errors = lived(program, *words, environment=given, patience_s=60, folder=folder)
    assert code == 0, errors
    return dict(json.loads(out))


def test_it_knows_nothing_of_the_one_before(tmp_path: Path) -> None:
    failing = {"STEPGRANT_TEST": "1", "STEPGRANT_TEST_FAILPOINT": "sdk.on_resume:kill"}
    first, second = told(tmp_path, "one", **environment(GIVEN="1", **failing)), told(tmp_path, "two", "three")
    assert (first["name"], first["words"], first["given"], first["failpoint"]) == ("__main__", ["one"], "1", True)
    assert (second["words"], second["given"], second["failpoint"]) == (["two", "three"], None, False)
    assert (first["environment"], second["environment"]) == (len(environment()) + 3, 0)
    assert first["folder"] == second["folder"] == str(tmp_path.resolve())
    assert first["random"] != second["random"]
    assert len({first["pid"], second["pid"], os.getpid()}) == 3
    # What lists the descriptors holds none; another child's or the forker's own would be seen here.
    assert first["open"] == second["open"] == []


@pytest.mark.parametrize(
    ("text", "code", "errors"),
    [
        ("import sys; sys.exit(75)", 75, ""),
        ("import sys; sys.exit('no key')", 1, "no key\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()", 0, ""),
    ],
)
def test_how_it_ends(tmp_path: Path, text: str, code: int, errors: str) -> None:
    program = tmp_path / "ends.py"
    program.write_text(text)
    done = lived(program, environment=environment(), patience_s=60)
    assert (done[0], done[1]) == (code, "late\n" if "late" in text else "")
    assert done[2].endswith(errors)


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "sleeps.py"
    program.write_text("import time; time.sleep(600)")
    code, _, errors = lived(program, environment=environment(), patience_s=0.2)
    assert (code, errors) == (-signal.SIGKILL, "\n(it did not end within 0.2 s)")


def test_it_stands_still_when_it_is_frozen(tmp_path: Path) -> None:
    program = tmp_path / "echoes.py"
    program.write_text("import sys\nfor line in sys.stdin: print(line, end='', flush=True)")
    talk = talking(program, environment=environment())
    try:
        freeze(talk.process)
        assert " T " in Path(f"/proc/{talk.process.pid}/stat").read_text(encoding="ascii")
        talk.stdin.write("word\n")
        talk.stdin.flush()
        talk.process.send_signal(signal.SIGCONT)
        assert talk.stdout.readline() == "word\n"
    finally:
        talk.close()
    assert talk.process.returncode == -signal.SIGKILL
