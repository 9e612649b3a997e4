"""What telling a run remembers on the way: where it stands, the lives of credentials, and who waits for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from stepgrant.canonical import JsonValue
from stepgrant.cli import plain
from stepgrant.receipt import Event

DIGEST: Final = "sha-256:"
SHORT_DIGEST: Final = 8
VALUE_LIMIT: Final = 60


class Mark(StrEnum):
    """What a line is about; a face chooses sign and colour by it."""

    RUN = "run"
    GOOD = "good"
    BAD = "bad"
    DOUBT = "doubt"
    PERSON = "person"
    CREDENTIAL = "credential"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, `at` milliseconds after the run was opened."""

    at: int
    mark: Mark
    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that belong together: of one attempt of a step, or (with `step` None) of the run."""

    step: str | None
    title: str
    facts: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """A run as it is told. `totals` are pairs of name and text; `open` says what somebody still has to do."""

    run: str
    key: str
    agent: str
    state: str
    opened_at: int
    ended_at: int | None
    blocks: tuple[Block, ...]
    totals: tuple[tuple[str, str], ...]
    open: tuple[str, ...]


class At:
    """One event of a receipt as it is told."""

    __slots__ = ("action", "attempt", "body", "cause", "epoch", "event", "step", "ts", "type")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.type = event.type
        self.ts = event.ts
        self.step = event.step
        self.attempt = event.attempt or 1
        self.epoch = event.epoch or 0
        # Entries of known types have the members of their type: whoever wrote them checked that.
        self.body: Mapping[str, Any] = event.part("body")
        self.action: Mapping[str, Any] = event.part("action")
        self.cause = event.cause

    def part(self, name: str) -> Mapping[str, Any]:
        """A member of the entry that is an object, `{}` where it does not apply."""
        return self.event.part(name)

    def shown(self, field: str) -> JsonValue:
        """The disclosed value of a field, or what its digest is of; `None` where it stays hidden."""
        if field in self.event.preimages:
            return self.event.preimages[field]
        value = self.event.disclosed.get(field)
        return None if isinstance(value, str) and value.startswith(DIGEST) else value

    @property
    def who(self) -> str:
        """Who caused it: the disclosed subject, else the kind."""
        subject = self.shown("by.subject")
        return plain.visible(subject) if isinstance(subject, str) else f"a {self.part('by').get('kind', 'caller')}"


@dataclass(slots=True)
class Life:
    """A credential's life, as far as it was told."""

    issued_at: int
    issuer: str
    redeemed_at: int | None = None
    over: bool = False


@dataclass(slots=True)
class _Draft:
    title: str
    facts: list[str]
    lines: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """What the totals count. Times in milliseconds."""

    entries: int = 0
    done: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)
    kept: int = 0
    denials: int = 0
    issued: int = 0
    used: int = 0
    unused: int = 0
    fenced: int = 0
    doubts: int = 0
    away: int = 0
    asking: int = 0
    asked: int = 0


class Teller:
    """Takes entries in order and groups what handlers say about them."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.facts: dict[str, str] = {}
        self.state = "unknown"
        self.opened_at: int | None = None
        self.ended_at: int | None = None
        self.last_ts = 0
        self.away_since: int | None = None
        self.positions: dict[str, int] = {}
        self.lives: dict[str, Life] = {}
        self.questions: dict[str, int] = {}
        self.doubts: dict[str, str] = {}
        self.replays: list[tuple[int, str]] = []
        self.decisions: dict[str, tuple[object, ...]] = {}
        self.tally = Tally()
        self._run: _Draft | None = None
        self._steps: dict[tuple[str, int, int], _Draft] = {}

    def take(self, event: Event) -> At:
        """The next event."""
        if self.opened_at is None:
            self.opened_at = event.ts
            self.facts = {"run": str(event.fields["run"]), "agent": str(event.part("agent").get("name", ""))}
        self.last_ts = event.ts
        self.tally.entries += 1
        return At(event)

    def begin(self, at: At, text: str, mark: Mark = Mark.RUN) -> None:
        """An event of the run: whatever stood open before it is closed."""
        self._flush()
        self._run = _Draft("", [])
        self._run.lines.append(self._line(at, mark, text))

    def say_of_run(self, at: At, mark: Mark, text: str) -> None:
        """A line about the run that closes nothing."""
        if self._run is None:
            self._run = _Draft("", [])
        self._run.lines.append(self._line(at, mark, text))

    def say(self, at: At, mark: Mark, text: str) -> None:
        """A line about the event's step, or about the run where it names none."""
        if at.step is None or at.step.startswith("~"):
            self.say_of_run(at, mark, text)
            return
        self.block(at).lines.append(self._line(at, mark, text))

    def block(self, at: At) -> _Draft:
        """The open block of the event's attempt, made on first use."""
        key = (str(at.step), at.attempt, at.epoch)
        if key not in self._steps:
            position = self.positions.get(str(at.step))
            title = f"{position}. {plain.visible(at.step)}" if position else plain.visible(at.step)
            self._steps[key] = _Draft(title, _facts(at))
        return self._steps[key]

    def _line(self, at: At, mark: Mark, text: str) -> Line:
        return Line(at.ts - (self.opened_at or 0), mark, text)

    def _flush(self) -> None:
        if self.replays and self._run is not None:
            keys = [key for _, key in self.replays]
            at = self.replays[0][0] - (self.opened_at or 0)
            text = f"{plain.count(len(keys), 'finished step')} kept, not run again: {plain.joined(keys)}"
            self._run.lines.append(Line(at, Mark.GOOD, text))
        self.replays = []
        if self._run is not None:
            self.blocks.append(Block(None, "", (), tuple(self._run.lines)))
        for (step, _, _), one in self._steps.items():
            self.blocks.append(Block(step, one.title, tuple(one.facts), tuple(one.lines)))
        self._run, self._steps = None, {}

    def finish(self, now: int | None) -> Story:
        """The story. `now` (ms) ends the times of a run that has not ended."""
        self._flush()
        opened = self.opened_at or 0
        end = self.ended_at or max(now or self.last_ts, self.last_ts)
        if self.away_since is not None:
            self.tally.away += end - self.away_since
        return Story(
            run=self.facts.get("run", ""),
            key=self.facts.get("key", ""),
            agent=plain.visible(self.facts.get("agent", "")),
            state=self.state,
            opened_at=opened,
            ended_at=self.ended_at,
            blocks=tuple(self.blocks),
            totals=_totals(self.tally, end - opened),
            open=_open(self),
        )


def _facts(at: At) -> list[str]:
    action, tool = at.action, at.action.get("tool")
    facts = [plain.visible(tool)] if isinstance(tool, str) and tool != at.step else []
    asked = at.shown("action.digest")
    resource = at.shown("action.resource")
    if resource is not None:
        facts.append(f"on {plain.json_line(resource, VALUE_LIMIT)}")
    if isinstance(asked, dict) and isinstance(asked.get("args"), dict):
        facts.append(_arguments(asked["args"]))
    if action.get("effect") and at.type != "step_recorded":
        facts.append(plain.visible(action["effect"]))
    if at.attempt > 1:
        facts.append(f"attempt {at.attempt}")
    if at.epoch:
        facts.append(f"epoch {at.epoch}")
    return [fact for fact in facts if fact]


def _arguments(args: Any) -> str:  # noqa: ANN401 - any JSON object
    shown = ", ".join(f"{plain.visible(name)}={plain.json_line(value, VALUE_LIMIT)}" for name, value in args.items())
    return f"({shown})" if shown else ""


def _totals(tally: Tally, total: int) -> tuple[tuple[str, str], ...]:
    time = [f"{plain.span(total)} in all"]
    if tally.away:
        time.append(f"{plain.span(tally.away)} of it held by nobody")
    if tally.asked:
        time.append(f"{plain.span(tally.asking)} from question to answer")
    steps = [f"{len(tally.done)} done with a credential", f"{len(tally.recorded)} recorded without one"]
    steps += [f"{tally.kept} kept over a resume"] if tally.kept else []
    steps += [plain.count(tally.denials, "denial")] if tally.denials else []
    steps += [f"{plain.count(tally.doubts, 'doubt')}"] if tally.doubts else []
    credentials = [f"{tally.issued} issued", f"{tally.used} redeemed"]
    credentials += [f"{tally.unused} provably never used"] if tally.unused else []
    pairs = [("time", ", ".join(time)), ("steps", ", ".join(steps)), ("credentials", ", ".join(credentials))]
    if tally.asked:
        pairs.append(("people", f"asked {plain.count(tally.asked, 'time')}"))
    if tally.fenced:
        pairs.append(("holders", f"{plain.count(tally.fenced, 'older holder')} fenced"))
    pairs.append(("ledger", plain.count(tally.entries, "entry", "entries")))
    return tuple(pairs)


def _open(teller: Teller) -> tuple[str, ...]:
    if teller.ended_at is not None:
        return ()
    asks = [f"approval {plain.visible(one)} waits for an answer" for one in teller.questions]
    return tuple(asks + [f"step {plain.visible(key)} is in doubt: {why}" for key, why in teller.doubts.items()])


def revision(text: object) -> str:
    """A policy revision, short: `1:4fGh2kQx`."""
    counter, _, digest = str(text).partition(":")
    return plain.visible(f"{counter}:{digest.removeprefix('sha-256:')[:SHORT_DIGEST]}")
