"""Judging what the agents were told: what was acknowledged is in the ledger (I1), and nothing else was (I3, I5, I7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from checker.evidence import Broken, Evidence, Line
from checker.story import Story

Stories = Mapping[str, Story]


def judge(evidence: Evidence, stories: Stories) -> Iterator[Broken]:
    """Everything that an agent was told and the ledger does not bear out."""
    values: dict[tuple[str, str], Any] = {}
    for number, lines in enumerate(evidence.heard):
        yield from _process(evidence, stories, number, lines, values)


def _process(
    evidence: Evidence, stories: Stories, number: int, lines: Sequence[Line], values: dict[tuple[str, str], Any]
) -> Iterator[Broken]:
    run, told = "", set[str]()
    for place, line in enumerate(lines):
        where = f"heard {number}.{place}"
        if "run" in line:
            run, told = str(line["run"]), set()
        story = stories.get(run)
        if story is None:
            if run and "run" in line:
                yield Broken("I1", run, where, "the agent was told of a run that is not in the ledger")
            continue
        yield from (Broken(which, run, where, text) for which, text in _line(evidence, story, line, told))
        if "told" in line:
            told.add(key := _key(story, line["told"]))
            if values.setdefault((run, key), line.get("value")) != line.get("value"):
                yield Broken("I7", run, where, f"{key} returned {values[run, key]!r} and now {line.get('value')!r}")


def _key(story: Story, name: object) -> str:
    step = story.known(str(name))
    return str(name) if step is None else step.key


def _line(evidence: Evidence, story: Story, line: Line, told: set[str]) -> Iterator[tuple[Any, str]]:
    if "run" in line and line["epoch"] not in story.holders:
        yield "I1", f"the agent was told epoch {line['epoch']}, which the ledger does not know"
    if "acts" in line:
        yield from _acts(story, line, told)
    if "told" in line:
        step = story.known(str(line["told"]))
        if step is None or step.finished is None:
            yield "I1", f"{line['told']} returned, but its outcome is not in the ledger"
    if line.get("ended") is True and story.ended is None:
        yield "I1", "the agent was told that the run has ended, and the ledger does not know"
    if "accepted" in line and evidence.one_clock:
        fenced = [at for epoch, at in story.since.items() if epoch > line["epoch"]]
        if fenced and line["asked"] > min(fenced):
            yield "I5", f"{line['accepted']} was accepted from epoch {line['epoch']}, which was fenced by then"


def _acts(story: Story, line: Line, told: set[str]) -> Iterator[tuple[Any, str]]:
    step, place = story.known(str(line["acts"])), (line["attempt"], line["epoch"])
    grants = [grant for grant in (step.grants if step else []) if (grant.attempt, grant.epoch) == place]
    if "jti" in line:
        grants = [grant for grant in grants if grant.jti == line["jti"]]
    if not grants:
        yield "I3", f"the tool of {line['acts']} ran with a credential, and the ledger knows no such grant"
    elif all(grant.failed or (grant.outside and not grant.leased) for grant in grants):
        yield "I3", f"the tool of {line['acts']} ran with a credential whose lease was never recorded"
    if _key(story, line["acts"]) in told:
        yield "I7", f"the tool of {line['acts']} ran after its call had returned"
