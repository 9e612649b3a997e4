"""What the watcher inside the agent's process saw, as values: lives, calls and boundaries. Pure but for reading a file.

Rules:
* A life is one start of the command. A boundary belongs to the call around it; a call that a boundary named knows its
  step.
* A line that a kill cut in half, or that is none of ours, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

BEFORE_EFFECT: Final = "sdk.before_effect"
AFTER_EFFECT: Final = "sdk.after_effect"
HOOK: Final = ".reconcile"
Line = dict[str, Any]


@dataclass(slots=True)
class Call:
    """One call of a tool or a recorded step, in one process. `came` is None while nobody knows; else it ended."""

    life: int
    kind: str
    tool: str
    effect: str
    hook: bool
    declared: bool
    has_id: bool
    args: str
    step: str | None = None
    ran: bool = False
    did: bool = False
    came: Line | None = None

    @property
    def error(self) -> str | None:
        """The code of the error that it ended with."""
        return None if self.came is None else self.came["error"]

    @property
    def same(self) -> tuple[str, str]:
        """What makes two calls equal."""
        return self.tool, self.args

    @property
    def is_hook(self) -> bool:
        """A reconcile hook's look."""
        return self.kind == "tool" and self.tool.endswith(HOOK)


@dataclass(frozen=True, slots=True)
class Hit:
    """One boundary that was reached, in the order of the process."""

    life: int
    name: str
    call: Call | None
    step: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """One try to open the run. `error`: what it ended with."""

    life: int
    agent: str
    key: str | None
    came: Line | None

    @property
    def error(self) -> str | None:
        """The code of the error that it ended with."""
        return None if self.came is None else self.came["error"]


@dataclass(frozen=True, slots=True)
class Outside:
    """One effect outside of every tool."""

    life: int
    event: str
    target: str
    where: str


@dataclass(slots=True)
class Trace:
    """All that was seen of one rehearsal."""

    calls: list[Call] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    outside: list[Outside] = field(default_factory=list)
    watched: bool = False

    def hits_of(self, life: int, name: str | None = None) -> list[Hit]:
        """The boundaries of one life."""
        return [hit for hit in self.hits if hit.life == life and name in {None, hit.name}]

    def calls_of(self, life: int) -> list[Call]:
        """The calls of one life, in their order."""
        return [call for call in self.calls if call.life == life]

    def tools(self) -> dict[str, Call]:
        """The first call of each tool, hooks apart."""
        found: dict[str, Call] = {}
        for call in self.calls:
            if call.kind == "tool" and not call.is_hook:
                found.setdefault(call.tool, call)
        return found


def read(path: Path) -> Trace:
    """Read the watcher's file; an empty trace where it wrote none."""
    if not path.exists():
        return Trace()
    return told(list(_lines(path.read_bytes())))


def _lines(data: bytes) -> Iterable[Line]:
    for raw in data.split(b"\n"):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and "life" in line:
            yield line


def told(lines: Sequence[Line]) -> Trace:
    """The trace of these lines."""
    trace, calls = Trace(), dict[tuple[int, int, int], Call]()
    came = {(line["life"], line["pid"], line["came"]): line for line in lines if "came" in line}
    for line in lines:
        life = int(line["life"])
        if "calls" in line:
            at = (life, line["pid"], line["n"])
            calls[at] = call = _call(line, came.get(at))
            trace.calls.append(call)
        elif "hit" in line:
            hit = Hit(life, line["hit"], calls.get((life, line["pid"], line["of"])), line["step"])
            trace.hits.append(hit)
            _learn(hit)
        elif "opens" in line:
            ended = came.get((life, line["pid"], line["n"]))
            trace.opened.append(Opened(life, line["opens"], line["key"], ended))
        elif "outside" in line:
            trace.outside.append(Outside(life, line["outside"], line["target"], line["where"]))
        elif "process" in line:
            trace.watched = True
    return trace


def _call(line: Line, came: Line | None) -> Call:
    return Call(
        life=int(line["life"]),
        kind=line["calls"],
        tool=line["tool"],
        effect=line.get("effect", ""),
        hook=bool(line.get("hook")),
        declared=bool(line.get("declared", True)),
        has_id=bool(line["id"]),
        args=line["args"],
        came=came,
    )


def _learn(hit: Hit) -> None:
    """A boundary inside the tool tells its call's step, and that it ran; one that came of it there is no more."""
    if hit.call is None:
        return
    if hit.step is not None:
        hit.call.step = hit.step
    hit.call.ran |= hit.name == BEFORE_EFFECT
    hit.call.did |= hit.name == AFTER_EFFECT
