"""What must hold of a run whatever was killed: from its entries, the target's own book, and what the agent was told.

Each rule is a promise of the design; `broken` names every one that does not hold, with the place where it shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stepgrant.receipt import Event

Line = Mapping[str, Any]
STEPS: Final = {"plan", "read", "note", "charge", "send"}
ONCE: Final = {"charge", "send"}
ACTING: Final = {"note.put", "card.charge", "mail.send"}


@dataclass
class _Grant:
    """One grant, as the entries tell it."""

    issued: Event
    redeemed: bool = False
    revoked: Event | None = None

    @property
    def place(self) -> tuple[str | None, int | None]:
        return self.issued.step, self.issued.attempt


@dataclass
class _Story:
    """What folding the entries under these rules remembers."""

    epoch: int = 0
    keys: list[Any] = field(default_factory=list)
    grants: dict[str, _Grant] = field(default_factory=dict)
    finished: dict[str, str] = field(default_factory=dict)

    def live(self) -> list[_Grant]:
        return [grant for grant in self.grants.values() if grant.revoked is None]


def broken(entries: Sequence[Event], book: Sequence[Line], told: Sequence[Line]) -> list[str]:
    """Every promise that does not hold; empty for a run that was ended as it should be."""
    story = _Story()
    found = [text for event in entries for text in _fold(story, event)]
    found += _order(entries)
    found += _ending(entries, story)
    found += _book(story, [line for line in book if "did" in line])
    found += _acknowledged(entries, story, told)
    return found


def _order(entries: Sequence[Event]) -> Iterator[str]:
    if [event.seq for event in entries] != list(range(len(entries))):
        yield "the chain has gaps"
    times = [event.ts for event in entries]
    if times != sorted(times):
        yield "an entry's time falls"


def _ending(entries: Sequence[Event], story: _Story) -> Iterator[str]:
    if not entries or entries[-1].type != "run_ended" or entries[-1].part("outcome").get("status") != "completed":
        yield "the run was not completed"
    if set(story.finished) & STEPS != STEPS:
        yield f"steps without an outcome: {sorted(STEPS - set(story.finished))}"
    if story.live():
        yield "a grant outlived the run"


def _fold(story: _Story, event: Event) -> Iterator[str]:
    where = f"entry {event.seq} ({event.type} {event.step or ''})"
    match event.type:
        case "run_opened" | "run_resumed":
            yield from _epoch(story, event, where)
        case "step_prepared" | "grant_issued":
            yield from _started(story, event, where)
        case "grant_redeemed":
            grant = story.grants[str(event.part("grant")["jti"])]
            if grant.redeemed or grant.revoked is not None or grant.issued.epoch != story.epoch:
                yield f"{where}: redeemed twice, or after it was revoked or fenced"
            grant.redeemed = True
        case "grant_revoked":
            grant = story.grants[str(event.part("grant")["jti"])]
            grant.revoked = grant.revoked or event
            if event.part("body").get("unused") and grant.redeemed:
                yield f"{where}: called unused, but it was redeemed"
        case "step_completed" | "step_recorded":
            yield from _finished(story, event, where)
        case "step_reconciled" if event.part("body").get("verdict") == "done":
            yield from _finished(story, event, where)


def _epoch(story: _Story, event: Event, where: str) -> Iterator[str]:
    if event.epoch != story.epoch + 1:
        yield f"{where}: epoch {event.epoch} after {story.epoch}"
    if event.part("agent").get("jkt") in story.keys:
        yield f"{where}: held by a key that held it before"
    if story.live():
        yield f"{where}: what the older epoch held is still live"
    story.epoch = event.epoch or 0
    story.keys.append(event.part("agent").get("jkt"))


def _started(story: _Story, event: Event, where: str) -> Iterator[str]:
    if event.step in story.finished:
        yield f"{where}: a step that has its outcome is started again"
    if event.epoch != story.epoch:
        yield f"{where}: under epoch {event.epoch}, which is fenced"
    if event.type == "step_prepared":
        return
    if story.live():
        yield f"{where}: two live grants"
    grant = _Grant(event)
    for before in story.grants.values():
        if before.place == grant.place and not (before.revoked and before.revoked.part("body").get("unused")):
            yield f"{where}: a second grant for an attempt whose first was perhaps used"
    story.grants[str(event.part("grant")["jti"])] = grant


def _finished(story: _Story, event: Event, where: str) -> Iterator[str]:
    if event.step in story.finished:
        yield f"{where}: a second outcome"
    story.finished[event.step or ""] = event.type


def _book(story: _Story, done: Sequence[Line]) -> Iterator[str]:
    """What the target wrote down itself, against what the ledger allowed."""
    times = Counter(line["step"] for line in done)
    yield from (f"{step} happened {times[step]} times" for step in sorted(ONCE) if times[step] != 1)
    yield from (f"{step} never happened" for step in ("read", "note") if times[step] < 1)
    for line in done:
        grant = story.grants.get(line["jti"])
        if grant is None or grant.place != (line["step"], line["attempt"]) or grant.issued.epoch != line["epoch"]:
            yield f"{line['did']} happened under grant {line['jti']}, which the ledger does not know so"
        elif line["did"] in ACTING and not grant.redeemed:
            yield f"{line['did']} happened under a grant that was not redeemed"
    used = Counter(line["jti"] for line in done)
    yield from (f"grant {jti} was used {count} times" for jti, count in used.items() if count > 1)
    if len({(line["key"], line["answer"]["id"]) for line in done if line["step"] == "note"}) > 1:
        yield "attempts of the idempotent step had different idempotency keys"


def _acknowledged(entries: Sequence[Event], story: _Story, told: Sequence[Line]) -> Iterator[str]:
    """Everything that the agent heard is in the ledger, and it heard one thing only."""
    held = {event.epoch for event in entries if event.type in {"run_opened", "run_resumed"}}
    granted = {(*grant.place, grant.issued.epoch) for grant in story.grants.values()}
    values: dict[str, Any] = {}
    for line in told:
        if "run" in line and line["epoch"] not in held:
            yield f"the agent was told epoch {line['epoch']}, which is not in the ledger"
        if "acts" in line and (line["acts"], line["attempt"], line["epoch"]) not in granted:
            yield f"the tool of {line['acts']} ran without a grant in the ledger"
        if "told" in line:
            if line["told"] not in story.finished:
                yield f"{line['told']} returned, but its outcome is not in the ledger"
            if values.setdefault(line["told"], line["value"]) != line["value"]:
                yield f"{line['told']} returned {values[line['told']]} and later {line['value']}"
    epochs = [line["epoch"] for line in told if "run" in line]
    if epochs != sorted(set(epochs)):
        yield f"epochs that did not rise: {epochs}"
