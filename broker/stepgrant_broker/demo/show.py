"""One showing of the demo, from an empty folder to no process left: time, exit code, and what is kept.

Rules: whatever ends it (the last check, a broken story, Ctrl-C, a signal, a defect), its processes are gone and its
folder too, unless it was to be kept or something failed: then the folder is what one wants to look at.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import httpx

from stepgrant.errors import StepgrantError
from stepgrant_broker.demo.checks import Broken, Checks, Finding
from stepgrant_broker.demo.processes import Interrupts, Processes
from stepgrant_broker.demo.stage import LOGS, Stage
from stepgrant_broker.demo.story import tell_story
from stepgrant_broker.demo.words import Words

INTERRUPTED: Final = 130
LIMIT_S: Final = 60.0
"""The promise: a showing takes no longer, set-up of the packages apart."""


def run(
    *,
    as_json: bool,
    keep: bool,
    story: Callable[[Stage, Checks, Words], None] = tell_story,
    limit_s: float = LIMIT_S,
) -> int:
    """Tell the story. The exit code: 0 if all checks held, 1 if not, 130 when it was interrupted."""
    words = Words(as_json=as_json)
    checks = Checks(words.tell)
    folder = Path(tempfile.mkdtemp(prefix="stepgrant-demo-"))
    interrupts = Interrupts()
    stopped = False
    try:
        with interrupts.caught(), Processes(folder / LOGS, interrupts) as processes:
            story(Stage(folder, processes), checks, words)
    except KeyboardInterrupt:
        stopped = True
    except SystemExit:
        # rich ends the program when nobody reads any more (`| head`); so nobody saw all of it hold.
        shutil.rmtree(folder)
        return INTERRUPTED
    except (Broken, StepgrantError, httpx.HTTPError) as broken:
        checks.check("the story could be told to its end", Finding(holds=False, evidence=str(broken)))
    except BaseException:
        sys.stderr.write(f"stepgrant: the demo itself has a defect; what it left is in {folder}\n")
        raise
    seconds = checks.seconds
    if not stopped:
        checks.chapter = "In the end"
        checks.check(f"it took no longer than {limit_s:g} s", seconds <= limit_s, f"{seconds:.1f} s")
    kept = keep or bool(checks.failed)
    words.end(checks, _summary(checks, seconds, folder if kept else None, stopped=stopped), _more(folder, kept=kept))
    if not kept:
        shutil.rmtree(folder)
    if stopped:
        sys.stderr.write("stepgrant: the demo was interrupted; its processes are gone\n")
        return INTERRUPTED
    return 0 if checks.all_hold else 1


def _summary(checks: Checks, seconds: float, folder: Path | None, *, stopped: bool) -> dict[str, Any]:
    return {
        "ok": checks.all_hold and not stopped,
        "seconds": round(seconds, 1),
        "held": len(checks.made) - len(checks.failed),
        "failed": [made.claim for made in checks.failed],
        "checks": [{**asdict(made), "at": round(made.at, 1)} for made in checks.made],
        "folder": None if folder is None else str(folder),
    }


def _more(folder: Path, *, kept: bool) -> list[str]:
    return [f"database, books, logs and receipt: {folder}"] if kept else []
