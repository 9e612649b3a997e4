"""What happened to a step, in words: decided, completed, failed, suspended, in doubt, reconciled."""

from __future__ import annotations

from typing import Final

from stepgrant.cli import plain
from stepgrant.cli._telling import At, Mark, Teller, revision

DOUBTS: Final = {
    "tool_raised": "the tool raised an error, which does not say that nothing happened",
    "outcome_unknown": "its credential may have been used and no outcome came",
    "fenced": "its holder was fenced before it could report",
    "lease_lapsed": "its holder went silent before it could report",
    "parked": "the run was parked before it could report",
    "quarantined": "the kill switch came before it could report",
    "run_ended": "the run ended before it could report",
    "restored": "the store was put back to before this, and what the lost part did is not known",
}
_FAILED: Final = {
    "not_executed": "did not happen: the tool said so, or no server redeemed its credential",
    "failed": "failed",
    "unknown": "raised an error; what it did is not known, and doing it again is harmless",
}
_REPEATS: Final = {
    "ask": "it equals a step that was completed before the crash; a person says if it is that one",
    "replay": "it is the step that was completed before the crash, says policy",
}


def prepared(teller: Teller, at: At) -> None:
    """`step_prepared`: the first says nothing of its own, the block's title does."""
    teller.positions[str(at.step)] = at.body["position"]
    block = teller.block(at)
    if at.body["revision"] > 1:
        teller.say(at, Mark.PLAIN, f"asked with other arguments (revision {at.body['revision']})")
    elif at.attempt > 1 and not block.lines:
        teller.say(at, Mark.PLAIN, f"attempt {at.attempt}, under the same idempotency key")


def decided(teller: Teller, at: At) -> None:
    """`decision`. The same answer asked for twice (prepare, then start) is told once."""
    decision = at.part("decision")
    effect, reasons = decision["effect"], decision["reasons"]
    repeats = at.body.get("duplicate")
    said = (repeats or effect, tuple(reasons), decision["policy_revision"], at.attempt, at.epoch)
    again = teller.decisions.get(str(at.step)) == said
    teller.decisions[str(at.step)] = said
    if effect == "deny":
        teller.tally.denials += 1
    if again and effect != "deny":
        if at.body["phase"] == "start":
            teller.say(at, Mark.GOOD, "decided again for the credential: the same answer")
        return
    why = f"{plain.joined(reasons)} (policy {revision(decision['policy_revision'])})"
    what = _action_word(at)
    match effect:
        case _ if repeats in _REPEATS:
            teller.say(at, Mark.PERSON if repeats == "ask" else Mark.GOOD, f"{_REPEATS[str(repeats)]}: {why}")
        case "allow":
            teller.say(at, Mark.GOOD, f"{what}allowed: {why}")
        case "require_approval":
            teller.say(at, Mark.PERSON, f"{what}a person must say yes: {why}")
        case _:
            teller.say(at, Mark.BAD, f"{what}DENIED: {why}")


def _action_word(at: At) -> str:
    tool = str(at.action.get("tool", ""))
    return f"{tool.rpartition('.')[2]} " if tool.startswith("stepgrant.run.") else ""


def recorded(teller: Teller, at: At) -> None:
    """`step_recorded`."""
    teller.positions[str(at.step)] = at.body["position"]
    teller.tally.recorded.add(str(at.step))
    teller.say(at, Mark.GOOD, _result("recorded", at))


def replayed(teller: Teller, at: At) -> None:
    """`step_replayed`: gathered into one line of the holder that came back."""
    teller.tally.kept += 1
    teller.replays.append((at.ts, str(at.step)))


def adopted(teller: Teller, at: At) -> None:
    """`step_adopted`."""
    teller.say(at, Mark.PLAIN, f"the same call under a new id; it goes on as {plain.visible(at.body['from'])}")


def duplicate_decided(teller: Teller, at: At) -> None:
    """`duplicate_decided`: a person's word on a call that equals a completed step."""
    of, note = plain.visible(at.body["of"]), at.shown("duplicate.note")
    word = f"the same as {of}, whose result counts" if at.body["verdict"] == "replay" else f"another call than {of}"
    because = f", because {plain.json_line(note, 120)}" if note is not None else ""
    teller.say(at, Mark.GOOD, f"{at.who}: this is {word}{because}")


def completed(teller: Teller, at: At) -> None:
    """`step_completed`."""
    teller.tally.done.add(str(at.step))
    teller.doubts.pop(str(at.step), None)
    teller.say(at, Mark.GOOD, _result("completed", at))


def failed(teller: Teller, at: At) -> None:
    """`step_failed`."""
    teller.doubts.pop(str(at.step), None)
    status = str(at.part("outcome").get("status"))
    error = at.shown("outcome.error")
    shown = f": {plain.json_line(error, 120)}" if error is not None else ""
    teller.say(at, Mark.BAD, f"{_FAILED.get(status, plain.visible(status))}{shown}")


def suspended(teller: Teller, at: At) -> None:
    """`step_suspended`."""
    teller.say(at, Mark.PLAIN, "suspended by the framework: neither failed nor in doubt")


def in_doubt(teller: Teller, at: At) -> None:
    """`step_in_doubt`."""
    why = DOUBTS.get(str(at.cause), plain.visible(at.cause or "no outcome is known"))
    teller.tally.doubts += 1
    teller.doubts[str(at.step)] = why
    teller.say(at, Mark.DOUBT, f"IN DOUBT, it may have happened: {why}")


def reconciled(teller: Teller, at: At) -> None:
    """`step_reconciled`: by the hook that asked the target, or by a person."""
    verdict = str(at.body["verdict"])
    via = at.body.get("via")
    who = f"the hook asked the target ({plain.visible(via)})" if via else at.who
    evidence = at.shown("reconcile.evidence")
    because = f", because {plain.json_line(evidence, 120)}" if evidence is not None else ""
    words = {
        "done": (Mark.GOOD, "it had happened; it is completed and not done again"),
        "not_done": (Mark.GOOD, "it had not happened, and nothing of it can still happen"),
    }
    mark, text = words.get(verdict, (Mark.DOUBT, "still unknown"))
    if verdict in words:
        teller.doubts.pop(str(at.step), None)
    if verdict == "done":
        teller.tally.done.add(str(at.step))
    teller.say(at, mark, f"doubt settled: {who}: {text}{because}" if verdict in words else f"{who}: {text}{because}")


def _result(word: str, at: At) -> str:
    if at.body["withheld"]:
        return f"{word}; its result was not stored (it held a live secret, is not JSON, or is too large)"
    result = at.shown("outcome.result")
    return word if result is None else f"{word}: {plain.json_line(result, 100)}"
