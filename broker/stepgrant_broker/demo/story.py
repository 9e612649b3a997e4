"""The story, chapter by chapter. Each chapter does something to real processes and then checks what came of it.

What is checked is looked up where it cannot be embellished: exit codes of the operating system, the targets' own books,
the broker's record. What a process says of itself finds the moment to act, and is evidence only of what nobody else can
know: which error it got.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from signal import SIGKILL
from typing import Any, Final

import httpx

from stepgrant_broker.demo import evidence
from stepgrant_broker.demo.checks import Broken, Checks
from stepgrant_broker.demo.evidence import did
from stepgrant_broker.demo.processes import Child, wait_for
from stepgrant_broker.demo.proof import prove
from stepgrant_broker.demo.stage import (
    DONE_FIRST,
    KEEPER,
    LAST_STEP,
    LEASE_MS,
    RUN_KEY,
    SLOW,
    STOLEN,
    TARGETS,
    Stage,
)
from stepgrant_broker.demo.words import Words

AGENT_S: Final = 25.0
"""How long to wait for something that an agent does: a lease of 3 s and a slow machine are in it."""
WAITING: Final = 75
"""The agent's exit code for "a person must answer first" (EX_TEMPFAIL: come back later)."""
NOT_ALLOWED: Final = 4
"""The command line's exit code for "not you"."""
STALE: Final = "stale_epoch"


@dataclass(slots=True)
class Story:
    """What the chapters share."""

    stage: Stage
    checks: Checks
    agents: list[Child] = field(default_factory=list)

    def chapter(self, title: str) -> None:
        """From here on checks belong to this chapter."""
        self.checks.chapter = title

    def agent(self, *arguments: str, role: str = "agent") -> Child:
        """The next agent process."""
        child = self.stage.start_agent(f"agent-{len(self.agents) + 1}", role, *arguments)
        self.agents.append(child)
        return child


def tell_story(stage: Stage, checks: Checks, words: Words) -> None:
    """All chapters in order. Raises `Broken` where going on would say nothing."""
    story = Story(stage, checks)
    set_up(story)
    killed_between_targets(story)
    killed_after_the_work(story)
    zombie(story)
    person(story)
    books(story)
    prove(stage, checks, words)


def set_up(story: Story) -> None:
    """Broker and targets run, and do nothing for those without a grant."""
    story.chapter("A broker, and five services with an API key each")
    stage, check = story.stage, story.checks.check
    stage.set_up()
    everybody = [*stage.targets.values(), *([stage.broker] if stage.broker else [])]
    pids = {child.pid for child in everybody if child.process.poll() is None}
    check("they are six processes", len(pids) == len(TARGETS) + 1, f"pids {', '.join(map(str, sorted(pids)))}")
    for address in stage.addresses.values():
        httpx.post(f"{address}/keys/rotate", json={}, trust_env=False)
    answers = {name: _refusals(stage, name) for name in TARGETS}
    check(
        "without a credential no target does anything",
        all(said == ["401 invalid_token"] for said in answers.values()) and not evidence.acts(stage.books()),
        _told({name: ", ".join(said) for name, said in answers.items()}),
    )


def killed_between_targets(story: Story) -> None:
    """Kill -9 while nothing is under way."""
    story.chapter("First kill -9: between two services")
    stage, check = story.stage, story.checks.check
    agent = story.agent(json.dumps(stage.addresses))
    agent.wait_line(f"rotated {DONE_FIRST[-1]}", AGENT_S)
    code = agent.kill()
    check("the agent was killed", code == -SIGKILL, f"pid {agent.pid}, signal {-code}")
    states = {key: step["state"] for key, step in stage.steps().items()}
    expected = {"plan": "recorded", **{f"rotate:{name}": "completed" for name in DONE_FIRST}}
    check("its plan and two rotations are on record, nothing else was begun", states == expected, _told(states))
    counts = _counts(stage)
    check("two keys are rotated", counts == dict.fromkeys(DONE_FIRST, 1), _told(counts))


def killed_after_the_work(story: Story) -> None:
    """Kill -9 after the target did its work, before the agent could learn of it."""
    story.chapter("Second kill -9: the work is done, its result is not recorded")
    stage, check = story.stage, story.checks.check
    agent = story.agent()
    wait_for(
        lambda: bool(did(stage.book(SLOW), "rotated")), AGENT_S, lambda: f"{SLOW} did no work; {agent.last_words()}"
    )
    code = agent.kill()
    check("the agent was killed again", code == -SIGKILL, f"pid {agent.pid}, signal {-code}")
    services = json.loads(agent.wait_line("services ", AGENT_S).removeprefix("services "))
    check(
        "it had come back with nothing but the name of its run, and got its input from there",
        agent.arguments[-1] == RUN_KEY and services == stage.addresses,
        f"arguments: {' '.join(agent.arguments[2:])}; input: {len(services)} services",
    )
    counts = _counts(stage)
    check("it went on after the two that were done", counts == dict.fromkeys((*DONE_FIRST, SLOW), 1), _told(counts))
    state, outcome = stage.step(f"rotate:{SLOW}")["state"], agent.line(f"rotated {SLOW}")
    check(
        f"{SLOW} has done its work, and neither agent nor broker know",
        state == "started" and outcome is None,
        f"{counts.get(SLOW, 0)} rotation in its book; for the broker the step is {state}",
    )


def zombie(story: Story) -> None:
    """SIGSTOP, takeover by lapse of the lease, SIGCONT; and what a thief in that process can do."""
    story.chapter("A zombie, with a thief inside")
    stage, check = story.stage, story.checks.check
    undead = story.agent(role="zombie")
    undead.wait_line(f"holding {STOLEN}", AGENT_S)
    epoch = stage.run()["epoch"]
    undead.freeze()
    frozen_at = time.monotonic()
    agent = story.agent()
    _check_doubt(story)
    _check_thief(story, undead)
    agent.wait_line("epoch ", AGENT_S)
    waited, now = time.monotonic() - frozen_at, stage.run()["epoch"]
    check(
        "frozen by SIGSTOP it lost the run when its lease had lapsed",
        now == epoch + 1 and waited >= LEASE_MS / 3000,
        f"from epoch {epoch} to {now}, {waited:.1f} s after the last moment of a lease of {LEASE_MS / 1000:g} s",
    )
    agent.wait_line(f"rotated {STOLEN}", AGENT_S)
    undead.thaw()
    undead.tell("go on")
    undead.wait_end(AGENT_S)
    _check_zombie(story, undead)


def _check_doubt(story: Story) -> None:
    step, notes = story.stage.step(f"rotate:{SLOW}"), did(story.stage.book(SLOW), "rotated")
    recorded = (step["result"] or {}).get("key_id")
    story.checks.check(
        f"{SLOW} was asked and not made to do it again",
        step["state"] == "completed" and [note["key_id"] for note in notes] == [recorded],
        f"recorded: {recorded}; in its book: {', '.join(note['key_id'] for note in notes)}",
    )


def _check_thief(story: Story, undead: Child) -> None:
    stage, check, other = story.stage, story.checks.check, DONE_FIRST[0]
    refused = _report(undead, "own library")
    check("its own library gives it no headers for another address", refused == "credential_misuse", refused)
    answer, noted = _report(undead, f"credential for {STOLEN} at {other}"), _refusals(stage, other)[-1]
    check(
        "a credential for one target is refused by another",
        answer == noted == "401 invalid_token" and len(did(stage.book(other), "rotated")) == 1,
        f"a credential for {STOLEN} at {other}: {_both(answer, noted)}",
    )


def _check_zombie(story: Story, undead: Child) -> None:
    stage, check = story.stage, story.checks.check
    answer, noted = _report(undead, f"old credential at {STOLEN}"), _refusals(stage, STOLEN)[-1]
    rotations = did(stage.book(STOLEN), "rotated")
    check(
        "after SIGCONT its old credential is refused by the target that it was for",
        answer == noted == f"409 {STALE}" and len(rotations) == 1,
        f"{STOLEN}: {_both(answer, noted)}",
    )
    outcomes = {what: _report(undead, what) for what in ("record a result", "next target", "end the run")}
    recorded = (stage.step(f"rotate:{STOLEN}")["result"] or {}).get("key_id")
    check(
        "it can record nothing, begin nothing and end nothing",
        set(outcomes.values()) == {STALE} and [note["key_id"] for note in rotations] == [recorded],
        _told(outcomes),
    )


def person(story: Story) -> None:
    """The last step waits for a person; the process does not."""
    story.chapter("The last step needs a person")
    stage, check = story.stage, story.checks.check
    code = story.agents[-1].wait_end(AGENT_S)
    state, revoked = stage.run()["state"], did(stage.book(KEEPER), "revoked_old")
    check(
        "the run is parked, the process has ended, no old key is revoked",
        code == WAITING and state == "parked" and not revoked,
        f"run {state}, exit code {code}, {len(revoked)} notes of revoking",
    )
    with stage.people() as people:
        pending = people.get("/v1/approvals", status="pending")["approvals"]
    if [one["step"] for one in pending] != [LAST_STEP]:
        raise Broken(f"not one question about {LAST_STEP} waits, but {len(pending)}")
    approval = str(pending[0]["id"])
    wrong = stage.command("approval", "approve", approval, "--yes", "--json", client="ops")
    refused = (_json(wrong).get("error") or {}).get("code")
    check(
        "somebody of another group cannot answer",
        wrong.process.returncode == NOT_ALLOWED and refused == "forbidden",
        f"exit code {wrong.process.returncode}, {refused}",
    )
    yes = stage.command("approval", "approve", approval, "--yes", "--json", "--note", "looked at it", client="dana")
    status = _json(yes).get("status")
    check(
        "dana of group security says yes on the command line",
        yes.process.returncode == 0 and status == "approved",
        f"exit code {yes.process.returncode}, {approval} {status}",
    )
    code, run = story.agent().wait_end(AGENT_S), stage.run()
    check("the agent comes back and finishes", code == 0 and run["state"] == "completed", f"run {run['state']}")


def books(story: Story) -> None:
    """What the targets themselves say, in the end."""
    story.chapter("What the targets' own books say")
    check, found = story.checks.check, story.stage.books()
    check("each of the five keys was rotated exactly once", evidence.rotated_once(found, TARGETS))
    old = [f"{name}/old" for name in TARGETS]
    check("the five old keys were revoked exactly once", evidence.revoked_once(found, KEEPER, old))
    plans, one_plan = sum(agent.said.count("planning") for agent in story.agents), evidence.one_plan(found)
    check(
        "the plan was made once, and came back to each later process",
        one_plan.holds and plans == 1,
        f"made {plans}x by {len(story.agents)} processes; {one_plan.evidence}",
    )


def _counts(stage: Stage) -> dict[str, int]:
    return {name: len(notes) for name, book in stage.books().items() if (notes := did(book, "rotated"))}


def _refusals(stage: Stage, name: str) -> list[str]:
    """What this target refused, by its own book."""
    return [f"{note['status']} {note['code']}" for note in did(stage.book(name), "refused")] or ["nothing"]


def _both(answer: str, noted: str) -> str:
    return noted if answer == noted else f"it noted {noted}, the thief saw {answer}"


def _report(undead: Child, what: str) -> str:
    return undead.wait_line(f"{what}: ", AGENT_S).removeprefix(f"{what}: ")


def _json(command: Child) -> dict[str, Any]:
    """What a command printed with `--json`. Raises `Broken`."""
    try:
        value: dict[str, Any] = json.loads("\n".join(command.said))
    except ValueError:
        raise Broken(f"{command.name} printed no JSON; {command.last_words()}") from None
    return value


def _told(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
