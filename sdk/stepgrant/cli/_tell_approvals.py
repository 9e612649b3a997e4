"""Questions to people and their answers, in words."""

from __future__ import annotations

from typing import Final

from stepgrant.cli import plain
from stepgrant.cli._telling import At, Mark, Teller

WHY_AGAIN: Final = {
    "action_changed": "the action is not the one that was answered",
    "policy_stricter": "policy asks for more now",
    "policy_changed": "policy asks other people now",
    "answer_expired": "the answer was not used in time",
    "not_answered_in_time": "nobody answered in time",
    "already_used": "the answer was used before",
}


def requested(teller: Teller, at: At) -> None:
    """`approval_requested`."""
    body, named = at.body, at.part("approval")["id"]
    teller.questions[named] = at.ts
    teller.tally.asked += 1
    people = plain.joined(body["groups"], "any approver")
    if body["quorum"] > 1:
        people = f"{body['quorum']} of {people}"
    again = body.get("why_again")
    because = f"; asked again: {WHY_AGAIN.get(again, plain.visible(again))}" if again else ""
    until = plain.span(body["answer_by"] - at.ts)
    teller.say(at, Mark.PERSON, f"{plain.visible(named)} asks {people}{_about(at)}, {until} to answer{because}")


def _about(at: At) -> str:
    """Who wants to go on with the run, where that is the question."""
    asked = at.shown("action.digest")
    if not isinstance(asked, dict) or asked.keys() != {"run", "subject"}:
        return ""
    verb = "take over" if at.action.get("tool") == "stepgrant.run.takeover" else "resume"
    return f" whether {plain.visible(asked['subject'])} may {verb}"


def decided(teller: Teller, at: At) -> None:
    """`approval_decided`."""
    body, named = at.body, at.part("approval")["id"]
    asked_at = teller.questions.get(named)
    waited = f" after {plain.span(at.ts - asked_at)}" if asked_at is not None else ""
    settled = body["settled"] != "pending"
    if asked_at is not None and settled:
        teller.tally.asking += at.ts - asked_at
        del teller.questions[named]
    yes = body["verdict"] == "approve"
    note = at.shown("approval.note")
    said = f", saying {plain.json_line(note, 200)}" if note is not None else ""
    more = "" if settled else "; more people have to answer"
    mark = Mark.PERSON if yes else Mark.BAD
    teller.say(at, mark, f"{at.who} {'approved' if yes else 'denied'} it{waited}{said}{more}")
