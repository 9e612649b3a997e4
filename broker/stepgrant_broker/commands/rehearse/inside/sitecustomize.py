"""Watches an agent from inside its own process while it is rehearsed. Standard library only; Python imports it by name.

It writes one JSON line for each thing it sees into the file that `STEPGRANT_REHEARSAL` names, and changes nothing:

    {"process": argv}                      this process has begun
    {"opens": agent, "key": run key}       a run is opened or resumed
    {"calls": n, "tool": ..., ...}         a guarded tool or a recorded step is called
    {"came": n, "error": code or null}     and what became of it (`opens` has `n` too)
    {"hit": failpoint, "of": n, "step": .} a boundary is reached, in which call and step
    {"outside": event, "target": ..., "where": "file:line"}   an effect in the run, outside of every tool

Rules:
* Never a value: of arguments only a digest goes into a line, of results and errors nothing but codes and types.
* A line is in the kernel's hands before the place goes on, so that a SIGKILL loses none.
* Only what happens in the run's own context counts as outside: a thread without that context is not judged.
* What was there is kept: another `sitecustomize` further down the path is loaded as if this one was not there.
* Each life of the agent pays for what is imported here: only what the SDK needs as well, and the rest where it is used.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib.machinery
import importlib.util
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = frozenset({"open", "os.remove", "os.rename", "os.system", "socket.connect", "subprocess.Popen"})
REHEARSED = os.environ.get("STEPGRANT_REHEARSAL", "")
FOLDER = os.environ.get("STEPGRANT_REHEARSAL_FOLDER", "")
LIFE = int(os.environ.get("STEPGRANT_REHEARSAL_LIFE", "0"))

_numbers = itertools.count(1)
_call: contextvars.ContextVar[int | None] = contextvars.ContextVar("stepgrant_rehearsal_call", default=None)
_busy: contextvars.ContextVar[bool] = contextvars.ContextVar("stepgrant_rehearsal_busy", default=False)


class Book:
    """The file of lines; opened once, so that writing a line is one system call and no audit event."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, **line: Any) -> None:  # noqa: ANN401 - JSON
        """One line. A book that cannot be written must not change what the agent does."""
        text = json.dumps({"pid": os.getpid(), "life": LIFE, "at": time.time(), **line}, default=str)
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "replace") + b"\n")


def watch_flow(book: Book, flow: Callable[..., Any], line: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """The same flow, with a line when it begins and one with what became of it."""

    def watched(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # noqa: ANN401 - those of the flow
        number = next(_numbers)
        book.note(n=number, **line(*args))
        token = _call.set(number)
        try:
            result = yield from flow(*args, **kwargs)
        except BaseException as error:
            book.note(came=number, **described(error))
            raise
        finally:
            with contextlib.suppress(ValueError):  # a generator that is closed elsewhere has another context
                _call.reset(token)
        raised = getattr(result, "error", None) if type(result).__name__ == "Raised" else None
        book.note(came=number, **described(raised))
        return result

    return watched


def described(error: BaseException | None) -> dict[str, Any]:
    """An error by its code and type; of what it says only the SDK's own words, which hold no secret."""
    if error is None:
        return {"error": None}
    ours = type(error).__module__.startswith("stepgrant.")
    code = str(getattr(error, "code", "")) if ours else ""
    said = {"why": str(error)[:500], "reasons": list(getattr(error, "reasons", ()))} if ours else {}
    return {"error": code or "raised", "type": type(error).__name__, **said}


def digest_of(args: Any) -> str:  # noqa: ANN401 - a tool's arguments
    """Says whether two calls are equal, and nothing else."""
    return hashlib.sha256(json.dumps(args, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def tool_line(_: Any, work: Any, *__: Any) -> dict[str, Any]:  # noqa: ANN401 - of the SDK
    """A guarded call."""
    spec = work.spec
    bare = type(spec)(spec.name)
    return {
        "calls": "tool", "tool": spec.name, "effect": spec.effect, "hook": spec.reconcile is not None,
        "declared": spec != bare, "id": work.step_id is not None or spec.step_id is not None,
        "args": digest_of(work.args),
    }  # fmt: skip


def step_line(_: Any, recording: Any, *__: Any) -> dict[str, Any]:  # noqa: ANN401 - of the SDK
    """A recorded step."""
    return {
        "calls": "step", "tool": recording.name, "id": recording.step_id is not None, "args": digest_of(recording.args),
    }  # fmt: skip


def run_line(order: Any, *_: Any) -> dict[str, Any]:  # noqa: ANN401 - of the SDK
    """A run that is opened or resumed."""
    return {"opens": order.agent, "key": order.run_key}


def watch_failpoints(book: Book, module: ModuleType) -> None:
    """Hear of every boundary, before whatever the environment ordered happens there."""
    ordered: Callable[[str], None] | None = vars(module).get("on")

    def hear(name: str) -> None:
        active = active_step()
        book.note(hit=name, of=_call.get(), step=active.key if active is not None else None)
        if ordered is not None:
            ordered(name)

    vars(module)["on"] = hear


def active_step() -> Any:  # noqa: ANN401 - the SDK's CurrentStep, or None
    """The step whose tool runs here."""
    active = context_of("_active")
    return active.step if active is not None else None


def context_of(name: str) -> Any:  # noqa: ANN401 - of the SDK
    """What the SDK's context variable holds here; None while the SDK is not loaded, or only half."""
    module = sys.modules.get("stepgrant._context")
    variable = vars(module).get(name) if module is not None else None
    return variable.get() if variable is not None else None


def patches(book: Book) -> dict[str, Callable[[ModuleType], None]]:
    """What is done to which module of the SDK, once it is loaded."""

    def flow(name: str, line: Callable[..., dict[str, Any]]) -> Callable[[ModuleType], None]:
        return lambda module: vars(module).update({name: watch_flow(book, vars(module)[name], line)})

    return {
        "stepgrant._failpoints": lambda module: watch_failpoints(book, module),
        "stepgrant._guard": flow("guarded", tool_line),
        "stepgrant._step": flow("_recorded", step_line),
        "stepgrant._run_flows": flow("opening", run_line),
    }


class Patcher:
    """Patches modules as they are loaded, before anybody can import a name from them. In `sys.meta_path`."""

    def __init__(self, wanted: dict[str, Callable[[ModuleType], None]]) -> None:
        self._wanted = wanted

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's own spec, with a loader that patches it."""
        patch = self._wanted.pop(fullname, None)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target) if patch is not None else None
        if patch is None or spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            patch(module)

        vars(spec.loader)["exec_module"] = exec_module
        return spec


class Outside:
    """An audit hook: what this process does to the world while its run is open and no tool of its runs."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._broker = os.environ.get("STEPGRANT_URL", "").rpartition("//")[2].rstrip("/")
        self._folder = os.path.realpath(FOLDER) + os.sep if FOLDER else ""

    @functools.cached_property
    def _library(self) -> tuple[str, ...]:
        """Where Python's own and installed modules are."""
        import sysconfig

        library = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
        return tuple({os.path.realpath(path) + os.sep for path in library if path})

    @functools.cached_property
    def _scratch(self) -> tuple[str, ...]:
        """Where a file is no effect."""
        import tempfile

        scratch = [tempfile.gettempdir(), "/dev", "/proc", "/sys", str(Path.home() / ".cache")]
        return (*(os.path.realpath(path) + os.sep for path in scratch), *self._library)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """As `sys.addaudithook` wants it. Raises nothing: the agent must not notice."""
        if event not in EVENTS or _busy.get() or not in_the_run_itself():
            return
        token = _busy.set(True)
        try:
            target = self._target(event, args)
            if target is not None:
                self._book.note(outside=event, target=target, where=self._where())
        except (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            self._book.note(unseen=event, type=type(error).__name__)
        finally:
            _busy.reset(token)

    def _target(self, event: str, args: tuple[Any, ...]) -> str | None:
        """What is acted on; None for what is no effect."""
        match event:
            case "open":
                writes = isinstance(args[2], int) and args[2] & WRITING
                return self._file(args[0]) if writes else None
            case "os.remove" | "os.rename":
                return self._file(args[0])
            case "socket.connect":
                return self._peer(args[1])
            case "subprocess.Popen":
                return os.path.basename(os.fspath(args[0])) if args[0] else str(args[1])[:80]  # noqa: PTH119 - bytes too
            case _:
                return os.path.basename(os.fsdecode(args[0])).split()[0][:80]  # noqa: PTH119 - bytes too

    def _file(self, path: Any) -> str | None:  # noqa: ANN401 - whatever open() takes
        if isinstance(path, int):
            return None
        full = os.path.realpath(os.fsdecode(path))
        if "__pycache__" in full or ".pyc" in os.path.basename(full):  # noqa: PTH119 - the import system's own
            return None
        if self._folder and full.startswith(self._folder):
            return full[len(self._folder) :]
        return None if full.startswith(self._scratch) else full

    def _peer(self, address: Any) -> str | None:  # noqa: ANN401 - whatever connect() takes
        if isinstance(address, tuple):
            peer = f"{address[0]}:{address[1]}"
            return None if peer == self._broker else peer
        return os.fsdecode(address)

    def _where(self) -> str:
        """The nearest line of the author's own."""
        frame = sys._getframe(2)  # noqa: SLF001 - the way to look at one's callers
        ours = str(HERE)
        while frame is not None:
            name = os.path.realpath(frame.f_code.co_filename)
            theirs = not name.startswith((*self._library, ours)) and not frame.f_code.co_filename.startswith("<")
            if theirs and not frame.f_globals.get("__name__", "").startswith("stepgrant."):
                shown = name.removeprefix(self._folder) if self._folder else name
                return f"{shown}:{frame.f_lineno}"
            if frame.f_back is None:
                break
            frame = frame.f_back
        return "?"


def in_the_run_itself() -> bool:
    """Whether this is the agent's own code in an open run: neither a tool nor a recorded step is around it."""
    frame = context_of("_frame")
    return frame is not None and frame.parent is None and frame.session.lost is None


# --------------------------------------------------------------------------------------------------------------- begin


def next_in_line() -> None:
    """Load the `sitecustomize` that would have been loaded without this one, if there is one."""
    path = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def begin(path: str) -> None:
    """Watch this process."""
    book = Book(path)
    book.note(process=[os.path.basename(word) for word in sys.orig_argv[:3]])  # noqa: PTH119 - cheap, at every start
    sys.meta_path.insert(0, Patcher(patches(book)))
    sys.addaudithook(Outside(book))


if __name__ == "sitecustomize":
    if REHEARSED:
        begin(REHEARSED)
    next_in_line()
