"""The referee: `check(evidence)` names every invariant that does not hold, and where it shows.

It is written from the protocol's pages and knows nothing of a broker. A healthy run, however often it was killed,
parked, fenced, denied or given back, gives nothing.

Rules:
* Runs are judged one after the other, entry by entry: each against what had happened before it, never after.
* What a test may set (leases, leeways, lifetimes) is not known here; where it would matter, the rule is the one that
  holds under every setting.
* Nothing is forgiven because something else is broken already, but a chain is only judged as far as it can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from checker import books, grants, heard, runs, steps, tables
from checker.chain import Chain, read_chain
from checker.evidence import Broken, Evidence, Tables
from checker.folding import fold
from checker.story import Story

JUDGES: Final = (runs.judge, grants.judge, steps.judge)


def check(evidence: Evidence) -> list[Broken]:
    """Every invariant that does not hold, chain by chain; empty when all of them do."""
    stories: dict[str, Story] = {}
    broken: list[Broken] = []
    chains: list[Chain] = []
    for (tenant, run), records in evidence.chains():
        chain = read_chain(tenant, run, records)
        broken += chain.broken
        chains.append(chain)
        if run:
            stories[run] = Story(run, one_clock=evidence.one_clock)
            broken += _told(chain, stories[run])
    broken += _once_each(chains)
    broken += _revisions(chains, stories)
    if evidence.tables is not None:
        broken += _beside(evidence.tables, chains, stories)
    broken += books.judge(evidence, stories)
    broken += heard.judge(evidence, stories)
    return broken


def _told(chain: Chain, story: Story) -> Iterator[Broken]:
    """What is wrong with the entries of one run."""
    for event in chain.events:
        for judge in JUDGES:
            for invariant, text in judge(story, event):
                where = " ".join(f"entry {event.seq} {event.type} {event.step or ''}".split())
                yield Broken(invariant, chain.run, where, text)
        fold(story, event)


def _once_each(chains: list[Chain]) -> Iterator[Broken]:
    """A run has one chain: nobody opens it a second time under its name."""
    seen: dict[tuple[object, ...], str] = {}
    for chain in chains:
        if not chain.run or not chain.events:
            continue
        first = chain.events[0]
        name = chain.tenant, first.part("agent").get("name"), first.part("body").get("run_key")
        if name[2] and seen.setdefault(name, chain.run) != chain.run:
            yield Broken("I4", chain.run, "entry 0", f"{name[2]} of {name[1]} is also {seen[name]}")


def _revisions(chains: list[Chain], stories: dict[str, Story]) -> Iterator[Broken]:
    """Nobody decides by a policy that was never activated."""
    known = {
        event.part("body").get("revision")
        for chain in chains
        if not chain.run
        for event in chain.events
        if event.type == "policy_activated"
    }
    for run, story in stories.items() if known else ():
        for event, effect in story.decisions.values():
            revision = event.part("decision").get("policy_revision")
            if effect == "allow" and revision not in known:
                yield Broken("I6", run, f"entry {event.seq}", f"an allow by {revision}, which was never activated")


def _beside(given: Tables, chains: list[Chain], stories: dict[str, Story]) -> Iterator[Broken]:
    rows = tables.by_run(given)
    for chain in chains:
        mine = rows.pop(chain.run, Tables())
        if chain.run and chain.events and not chain.broken:
            yield from tables.judge(chain, stories[chain.run], mine)
    for run, orphans in rows.items():
        if orphans.grants:
            yield Broken("I3", run, "grants", "grants of a run that has no entries")
        else:
            yield Broken("I4", run, "runs", "rows of a run that has no entries")
