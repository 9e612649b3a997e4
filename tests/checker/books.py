"""Judging what targets, database servers and engines wrote down themselves against what the ledger allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from checker.evidence import Broken, Evidence, Line
from checker.grants import LATE_MS
from checker.story import CONFIRMED, REQUIRED, Grant, Story

Stories = Mapping[str, Story]
Placed = Sequence[tuple[str, Line]]

UNDONE: Final = frozenset({"not_executed", "not_done"})


def judge(evidence: Evidence, stories: Stories) -> Iterator[Broken]:
    """Everything in the books that the ledger does not bear out."""
    lines = [(f"book {number}", line) for number, line in enumerate(evidence.books)]
    done = [(where, line) for where, line in lines if "did" in line]
    for where, line in done:
        yield from _did(evidence, stories, where, line)
    for where, line in lines:
        if "spent" in line and "did" not in line:
            yield from _spent(stories, where, line)
    yield from _times(stories, done)
    yield from _answers(stories, lines)
    yield from _downs(evidence, stories, lines)
    yield from _left_alive(evidence, stories)
    yield from _logins(evidence, stories, [(where, line) for where, line in lines if "alive" in line])


def grant_at(stories: Stories, line: Line) -> Grant | None:
    """The grant that a line is about: by its name, or by its place. The last one that was let go, if there are more."""
    story = stories.get(str(line.get("run")))
    if story is None:
        return None
    if "jti" in line:
        return story.grants.get(str(line["jti"]))
    step = story.known(str(line.get("step")))
    place = line.get("attempt"), line.get("epoch")
    at = [grant for grant in (step.grants if step else []) if (grant.attempt, grant.epoch) == place]
    return next((grant for grant in reversed(at) if grant.leased or not grant.outside), at[-1] if at else None)


def _did(evidence: Evidence, stories: Stories, where: str, line: Line) -> Iterator[Broken]:
    run, grant = str(line.get("run") or ""), grant_at(stories, line)
    if grant is None:
        yield Broken("I3", run, where, f"{line['did']} was done under a grant that the ledger does not know")
        return
    if (grant.step, grant.attempt, grant.epoch, grant.tool) != (
        line["step"], line["attempt"], line["epoch"], line["did"],
    ):  # fmt: skip
        yield Broken("I3", run, where, f"{line['did']} of {line['step']} was done under {grant.jti}, of {grant.step}")
    if grant.outside and not grant.leased:
        yield Broken("I3", run, where, f"{line['did']} was done with a login whose lease was never recorded")
    if grant.redeem == REQUIRED and grant.redeemed is None:
        yield Broken("I3", run, where, f"{line['did']} was done under {grant.jti}, which was not redeemed")
    if "at" not in line or not evidence.one_clock:
        return
    if line["at"] > grant.exp + LATE_MS:
        yield Broken("I3", run, where, f"{line['did']} was done long after {grant.jti} had run out")
    if grant.outside and grant.confirmed is not None and line["at"] > grant.confirmed:
        ended = stories[run].ended
        yield Broken(
            "I9" if ended else "I3", run, where, f"{grant.jti} was confirmed dead, and its login did something"
        )


def _spent(stories: Stories, where: str, line: Line) -> Iterator[Broken]:
    run = str(line.get("run") or "")
    story = stories.get(run)
    grant = story.grants.get(str(line["spent"])) if story else None
    if grant is None:
        yield Broken("I3", run, where, f"{line['spent']} was redeemed, and the ledger does not know it")
    elif grant.redeemed is None:
        yield Broken("I1", run, where, f"the target was told that {grant.jti} is redeemed; the ledger forgot")


def _times(stories: Stories, done: Placed) -> Iterator[Broken]:
    """How often things happened, and under which keys."""
    uses: Counter[str] = Counter()
    once: dict[tuple[str, str], list[str]] = {}
    keys: dict[tuple[str, str], set[str]] = {}
    for where, line in done:
        grant, run = grant_at(stories, line), str(line["run"])
        if grant is None:
            continue
        uses[grant.jti] += 1
        if grant.redeem == REQUIRED and uses[grant.jti] > 1:
            yield Broken("I2", run, where, f"{grant.jti} was used {uses[grant.jti]} times")
        if grant.effect == "read":
            continue
        keys.setdefault((run, grant.step), set()).add(str(line["key"]))
        if len(keys[run, grant.step]) > 1:
            yield Broken("I8", run, where, f"attempts of {grant.step} had different idempotency keys")
        if grant.effect == "once":
            before = once.setdefault((run, grant.step), [])
            before.append(where)
            if len(before) > 1:
                yield Broken("I8", run, where, f"{grant.step} happened {len(before)} times: {', '.join(before)}")
            yield from _denied(stories[run], run, where, grant)


def _denied(story: Story, run: str, where: str, grant: Grant) -> Iterator[Broken]:
    """It happened, so nothing may say that it did not."""
    step = story.known(grant.step)
    said = step.excused.get(grant.attempt) if step is not None else None
    if said is not None:
        yield Broken(
            "I8", run, where, f"{grant.step} happened, but entry {said.seq} ({said.type}) says that it did not"
        )
    elif grant.disclaimed:
        yield Broken("I8", run, where, f"{grant.step} happened, but a later start says that no tool saw {grant.jti}")


def _answers(stories: Stories, lines: Placed) -> Iterator[Broken]:
    """What the engine says that it answered, against what the ledger says that it did."""
    given = {str(line["answered"]): str(line["effect"]) for _, line in lines if "answered" in line}
    for run, story in stories.items() if given else ():
        for name, (event, effect) in story.decisions.items():
            if effect == "allow" and given.get(name) != "allow":
                text = f"{name} is an allow, but the engine says {given.get(name, 'that it never answered')}"
                yield Broken("I6", run, f"entry {event.seq}", text)


def _downs(evidence: Evidence, stories: Stories, lines: Placed) -> Iterator[Broken]:
    """What came of a dependency while it gave no answers."""
    downs = [line for _, line in lines if "down" in line] if evidence.one_clock else []
    for line in downs:
        for run, story in stories.items():
            for seq, at, what in _needing(story, str(line["down"])):
                if line["from"] < at < line["to"]:
                    yield Broken("I6", run, f"entry {seq}", f"{what} while there was no {line['down']} to ask")


def _needing(story: Story, what: str) -> Iterable[tuple[int, int, str]]:
    if what == "policy":
        return [(event.seq, event.ts, "an allow") for event, effect in story.decisions.values() if effect == "allow"]
    if what == "issuer":
        return [(grant.seq, grant.leased_at or 0, "a lease") for grant in story.grants.values() if grant.leased]
    return [(grant.seq, grant.at, "a grant") for grant in story.grants.values()]


def _logins(evidence: Evidence, stories: Stories, alive: Placed) -> Iterator[Broken]:
    """What a database server says of logins: each belongs to a grant that is not confirmed dead."""
    owed = Counter[int]()
    for line in {line["at"]: line for _, line in alive}.values():
        grants = (grant for story in stories.values() for grant in story.grants.values())
        owed[line["at"]] = sum(_owed(evidence, grant, line["at"]) for grant in grants)
    for where, line in alive:
        if not (line["alive"] or line.get("sessions")):
            continue
        grant, run = grant_at(stories, line), str(line.get("run") or "")
        if grant is not None and not _owed(evidence, grant, line["at"]):
            ended = stories[run].ended
            yield Broken("I9" if ended else "I3", run, where, f"the login of {grant.jti} lives after it was taken back")
            continue
        owed[line["at"]] -= 1
        if owed[line["at"]] < 0:
            yield Broken("I3", run, where, f"{line['login']} lives, and the ledger does not account for it")


def _owed(evidence: Evidence, grant: Grant, at: int) -> bool:
    """Something may live at the issuer for this grant."""
    if grant.revocation != CONFIRMED or grant.failed:
        return False
    if evidence.settled_at is not None and evidence.settled_at <= at and grant.over:
        return False
    return grant.confirmed is None or not evidence.one_clock or grant.confirmed >= at


def _left_alive(evidence: Evidence, stories: Stories) -> Iterator[Broken]:
    """What was taken back long ago must be confirmed dead."""
    for run, story in stories.items() if evidence.settled_at is not None else ():
        for grant in story.grants.values():
            mine = grant.revocation == CONFIRMED and not grant.failed and grant.confirmed is None
            if mine and grant.revoked is not None and grant.revoked < (evidence.settled_at or 0):
                yield Broken("I9", run, f"grants {grant.jti}", "taken back, and never confirmed dead")
