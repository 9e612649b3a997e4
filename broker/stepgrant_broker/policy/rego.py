"""One compiled policy in this process, with the traps of the regorus library closed.

It is for checks, tests and explanations. Decisions are made by the same library in a process of its own
(`engine_process`), because a query can neither be stopped nor moved aside in this one.

Rules:
* A `Rego` lives and dies in the thread that made it. The library's `Engine` panics when another thread uses or drops
  it, so nothing that refers to one (an exception's traceback does) may leave the thread: `RegoError` holds text only.
* A panic of the library is a `BaseException`; here it is a `RegoError` like every other failure, with `panic` set,
  after which this `Rego` must not be used again.
* The library writes "undefined" as the text `<undefined>`. No decision is a text, so that text always reads as `None`.
* Errors lose their stack trace and source excerpt. `message` may quote values of the input: it is for the policy's
  author. `place` never does.
* The library's bytecode machine (`Rvm`) is not used: it lets rules through whose helpers are undefined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, cast

import regorus

from stepgrant import canonical
from stepgrant_broker.policy.engine_child import DECISION, NO_VALUE

ENGINE: Final = f"regorus/{version('gordon-to-regorus')}"
UNDEFINED: Final = NO_VALUE.encode()

_PLACE: Final = re.compile(r"-->\s(?P<file>[^\n]+?):(?P<line>\d+):\d+")
_ERROR: Final = re.compile(r"^error:\s*(?P<message>.+)$", re.MULTILINE)


class RegoError(Exception):
    """The library failed. `file` and `line` (from 1) are set when it named a place in the policy."""

    def __init__(self, message: str, *, file: str | None = None, line: int = 0, panic: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.panic = panic

    @property
    def place(self) -> str:
        """Where it failed, without any value."""
        return f"{self.file}:{self.line}" if self.file else "an unnamed place"


def trimmed(error: BaseException | str) -> RegoError:
    """What the library raised (or the text of it), without stack trace and source excerpt."""
    text = str(error).partition("Stack backtrace:")[0].strip()
    place = _PLACE.search(text)
    named = _ERROR.search(text)
    message = named["message"] if named else next((line for line in text.splitlines() if line.strip()), "no message")
    panic = not isinstance(error, Exception | str)
    if place is None:
        return RegoError(message[:200], panic=panic)
    return RegoError(message[:200], file=place["file"], line=int(place["line"]), panic=panic)


class _Closed:
    """Turns whatever the library raises into `RegoError`.

    No generator of `contextlib`: from Python 3.12 on, what it raises is in a ring with what the library raised, whose
    traceback holds the engine, until a thread looks for garbage, whichever it is.
    """

    def __enter__(self) -> None:
        """Nothing is prepared."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raises `RegoError`."""
        if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
            return
        try:
            raise trimmed(error) from None
        finally:
            del error, traceback


class Rego:
    """One compiled policy with its data. Raises `RegoError` from every method, and nothing else of the library."""

    def __init__(self, modules: Mapping[str, str], data: Mapping[str, Any], *, observe: bool = False) -> None:
        """Compile `modules` (path to text). `observe` turns on coverage and gathers `print` for `take_prints`."""
        with _Closed():
            self._engine = regorus.Engine()
            # Otherwise `print` in a policy would write arguments of actions to stderr.
            self._engine.set_gather_prints(True)
            for path, text in modules.items():
                self._engine.add_policy(path, text)
            self._engine.add_data_json(canonical.dumps(data).decode())
            if observe:
                self._engine.set_enable_coverage(True)

    def evaluate(self, policy_input: bytes, rule: str = DECISION) -> bytes | None:
        """The rule's value as JSON, or `None` when it is undefined."""
        with _Closed():
            self._engine.set_input_json(policy_input.decode())
            answer = self._engine.eval_rule_as_json(rule).encode()
        return None if answer == UNDEFINED else cast("bytes", answer)

    def syntax_trees(self) -> list[dict[str, Any]]:
        """The library's syntax tree of each module, in the order of loading."""
        with _Closed():
            return cast("list[dict[str, Any]]", json.loads(self._engine.get_ast_as_json()))

    def take_coverage(self) -> dict[str, tuple[frozenset[int], frozenset[int]]]:
        """Per file the lines that were reached and those that were not since the last call."""
        with _Closed():
            files = json.loads(self._engine.get_coverage_report_as_json())["files"]
            self._engine.clear_coverage_data()
        return {one["path"]: (frozenset(one["covered"]), frozenset(one["not_covered"])) for one in files}

    def take_prints(self) -> list[str]:
        """What `print` said since the last call."""
        with _Closed():
            return [str(line) for line in self._engine.take_prints()]
