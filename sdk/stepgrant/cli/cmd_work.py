"""`stepgrant work`: a worker for `@stepgrant.agent` functions."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepgrant.cli import plain
from stepgrant.cli.command import Cli, command
from stepgrant.cli.exits import CommandError, ExitCode
from stepgrant.errors import StepgrantError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from stepgrant._agent import Handle
    from stepgrant._worker import Event, Worker

_NOT_THEIRS = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).resolve().parents[1]) + os.sep,
)
"""Python's own folder, that of what is installed, and ours."""
TARGETS = Annotated[
    list[str], typer.Argument(metavar="MODULE:AGENT...", help="Agents: a module and the name of the function in it.")
]
CONCURRENCY = Annotated[int, typer.Option("--concurrency", "-c", min=1, max=256, help="So many runs side by side.")]
POLL = Annotated[float, typer.Option("--poll", min=0.05, max=3600, help="Seconds between two looks, jittered.")]
MAX_TRIES = Annotated[
    int, typer.Option("--max-tries", min=1, max=1000, help="Set a run aside after so many tries without a result.")
]
STOP = Annotated[
    float, typer.Option("--stop-timeout", min=0, max=3600, help="Seconds that steps under way get when it stops.")
]


def register(root: typer.Typer) -> None:
    """Add the command."""

    @command(
        root,
        "work",
        example="stepgrant work billing:bill\nstepgrant work billing:bill refunds:refund --concurrency 8",
        remote=False,
    )
    def work(
        cli: Cli,
        targets: TARGETS,
        concurrency: CONCURRENCY = 4,
        poll: POLL = 0.5,
        max_tries: MAX_TRIES = 5,
        stop_timeout: STOP = 30.0,
    ) -> None:
        """Run agents: those that were started, those whose process died, and those whose question was answered.

        Any number of workers may do so side by side. It stops on SIGTERM or Ctrl-C: steps under way end, the runs are
        given back, exit code 0; after --stop-timeout, or at the second signal, it takes them from their steps: 1.
        With --json it prints one JSON object a line (`event`, `at` in ms, `run`, `run_key`, `tries`, `why`, ...).
        Address and identity are those of an agent: STEPGRANT_URL and STEPGRANT_WORKLOAD_KEY.
        """
        from stepgrant._worker import Settings, Worker
        from stepgrant._worker_find import Backoff

        handles = [load(target) for target in targets]
        for handle in handles:
            handle.order()  # a missing key is said at once, and not at the first run
        settings = Settings(concurrency, poll, stop_timeout, Backoff(max_tries=max_tries))
        worker = Worker(handles, settings, _teller(as_json=cli.out.json_mode))
        _stop_on_signals(worker)
        if not worker.work():
            raise typer.Exit(ExitCode.REFUSED)


def load(target: str) -> Handle[Any, Any]:
    """The agent that `module:name` stands for, from the current folder too. Raises `CommandError`."""
    from stepgrant._agent import Handle

    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise CommandError(f"{plain.visible(target)} is not MODULE:AGENT, such as billing:bill")
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds texts
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as above
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise CommandError(f"{module} needs {error.name}, which is not installed", code="not_installed") from None
        raise CommandError(f"there is no module {plain.visible(module)} here or among what is installed") from None
    except SystemExit as error:
        why = f"it ends the program ({_place(error)}): what it runs belongs under `if __name__ == '__main__':`"
        raise CommandError(f"{plain.visible(module)} cannot be imported: {why}") from None
    except Exception as error:  # noqa: BLE001 - whatever the user's module does when it is imported
        raise CommandError(f"{plain.visible(module)} cannot be imported: {_cause(error, module)}") from None
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Handle):
        raise CommandError(f"{plain.visible(target)} is no agent: decorate the function with @stepgrant.agent(...)")
    return found


def _cause(error: Exception, module: str) -> str:
    """What was raised and where. Its text only if Python or Stepgrant wrote it: any other may hold a secret."""
    if isinstance(error, SyntaxError):
        return plain.visible(f"{type(error).__name__}: {error.msg} at {error.filename}:{error.lineno}")
    if isinstance(error, (ImportError, NameError, StepgrantError)):
        return f"{type(error).__name__}: {plain.visible(str(error))} ({_place(error)})"
    shown = f'python -c "import {plain.visible(module)}"'
    return f"{type(error).__name__} {_place(error)}; `{shown}` shows what it says"


def _place(error: BaseException) -> str:
    """The last line that ran of what is not Python's, not installed and not ours: the line to look at."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(("<", *_NOT_THEIRS))]
    frame = (own or frames)[-1]
    return f"at {plain.visible(frame.filename)}:{frame.lineno}"


def _stop_on_signals(worker: Worker) -> None:
    def stop(_: int, __: FrameType | None) -> None:
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _teller(*, as_json: bool) -> Callable[[Event], None]:
    lock = threading.Lock()

    def tell(event: Event) -> None:
        line = _json(event) if as_json else _words(event)
        with lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    return tell


def _json(event: Event) -> str:
    members = {name: value for name, value in asdict(event).items() if value is not None and name != "kind"}
    return json.dumps({"event": event.kind, "at": time.time_ns() // 1_000_000, **members})


WORDS = {
    "ready": "ready",
    "taken": "taken, try",
    "completed": "completed",
    "ended": "over here:",
    "parked": "parked:",
    "given_back": "given back",
    "lost": "lost:",
    "refused": "refused:",
    "set_aside": "set aside:",
    "no_broker": "no answer from the broker:",
    "stopping": "stopping:",
    "stopped": "stopped",
}


def _words(event: Event) -> str:
    who = "" if event.run_key is None else f"{event.agent} {event.run_key} ({event.run}) "
    more = str(event.tries) if event.kind == "taken" else event.why or ""
    return plain.visible(f"{who}{WORDS[event.kind]} {more}".rstrip())
