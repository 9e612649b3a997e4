"""The run's own events in words: opened, resumed, taken over, parked, quarantined, ended."""

from __future__ import annotations

from typing import Final

from stepgrant.cli import plain
from stepgrant.cli._telling import At, Mark, Teller, revision

_PARKED: Final = {
    "awaiting_approval": "parked by its holder: a person has to answer first",
    "in_doubt": "parked by its holder: a step is in doubt",
    "suspended": "parked by its holder: the framework suspended it",
    "requested": "parked by its holder",
    "error": "parked by its holder after an error",
    "approved": "parked",
    "queued": "stored for a worker",
    "set_aside": "set aside: nobody opens it until a person releases it",
}
_ENDED: Final = {"completed": Mark.GOOD, "failed": Mark.BAD, "cancelled": Mark.BAD}


def opened(teller: Teller, at: At) -> None:
    """`run_opened`."""
    teller.state = "open"
    teller.facts["key"] = plain.visible(at.body["run_key"])
    teller.begin(at, f"opened by {_holder(at)} under epoch {at.epoch}{_why(at)}")


def resumed(teller: Teller, at: At) -> None:
    """`run_resumed`: what it says depends on how the older holder left."""
    older, was_parked = at.epoch - 1, teller.away_since is not None
    gone = at.body["parked_ms"]
    silent = at.body["lease_lapsed"] and not was_parked
    fenced = ""
    if not was_parked:
        teller.tally.fenced += 1
        teller.tally.away += gone
        fenced = f"; epoch {older} is fenced: if it wakes up, it gets nothing"
    if teller.away_since is not None:
        teller.tally.away += at.ts - teller.away_since
    if silent:
        how = f"the holder of epoch {older} went silent, its lease had lapsed {plain.span(gone)} ago; "
    elif not was_parked:
        how = f"the holder of epoch {older} still had its lease; "
    else:
        how = f"after {plain.span(gone)} "
    word = "resumed" if at.body["kind"] == "resume" else "taken over"
    teller.away_since, teller.state = None, "open"
    who = f"{word} by {_holder(at)} with a new key under epoch {at.epoch}"
    teller.begin(at, f"{how}{who}{_why(at)}{fenced}")


def parked(teller: Teller, at: At) -> None:
    """`run_parked`: by its holder, or because nobody renewed the lease."""
    teller.state, teller.away_since = "parked", at.ts
    if at.cause == "lease_lapsed":
        teller.tally.fenced += 1
        text = (
            f"the holder of epoch {at.epoch} went silent (crashed, killed or frozen) and its lease lapsed: parked, "
            "and if that holder wakes up, it gets nothing"
        )
        teller.begin(at, text, Mark.BAD)
        return
    reason = str(at.body["reason"])
    detail = at.shown("park.detail")
    why = f" ({plain.visible(detail)})" if isinstance(detail, str) else ""
    mark = Mark.BAD if reason == "set_aside" else Mark.RUN
    teller.begin(at, _PARKED.get(reason, f"parked: {plain.visible(reason)}") + why, mark)


def quarantined(teller: Teller, at: At) -> None:
    """`run_quarantined`."""
    if teller.away_since is None:
        teller.away_since = at.ts
    teller.state = "quarantined"
    what = at.body["by"]
    if what == "restored":
        teller.begin(at, "quarantined after the restore: a person looks at its targets, then releases it", Mark.BAD)
        return
    named = "it" if what == "run" else f"its {plain.visible(what)}"
    teller.begin(at, f"{at.who} threw the kill switch on {named}: quarantined", Mark.BAD)


def released(teller: Teller, at: At) -> None:
    """`run_released`."""
    quarantined = teller.state == "quarantined"
    teller.state = "parked"
    what = "lifted the quarantine: parked" if quarantined else "released it: it may be tried again"
    teller.begin(at, f"{at.who} {what}", Mark.PERSON)


def restored(teller: Teller, at: At) -> None:
    """`run_restored`: what the record says of the time that was lost is nothing."""
    if teller.away_since is None:
        teller.away_since = at.ts
    teller.state = "parked"
    for approval in list(teller.questions):
        del teller.questions[approval]
    text = (
        f"{at.who} put the store back to an earlier state: what this run did after that is not in the record. "
        f"Epoch {at.body['from_epoch']} and whatever came after it are fenced, and what people had answered is void"
    )
    teller.begin(at, text, Mark.BAD)


def ended(teller: Teller, at: At) -> None:
    """`run_ended`."""
    status = str(at.body["status"])
    teller.state, teller.ended_at = status, at.ts
    if teller.away_since is not None:
        teller.tally.away += at.ts - teller.away_since
        teller.away_since = None
    by = f" by {at.who}" if at.part("by").get("kind") == "person" else ""
    result = at.shown("outcome.result")
    shown = f"; result {plain.json_line(result, 100)}" if result is not None else ""
    teller.begin(at, f"{plain.visible(status)}{by}{shown}; this is final", _ENDED.get(status, Mark.RUN))


def erased(teller: Teller, at: At) -> None:
    """`run_erased`."""
    if at.cause == "retention":
        teller.begin(at, "the values of this run were erased: their time of keeping was over", Mark.RUN)
    else:
        teller.begin(at, f"{at.who} erased what the run's commitments stand for", Mark.PERSON)


def _holder(at: At) -> str:
    method = str(at.body["attestation"].get("method", "")).replace("_", " ")
    return f"workload {plain.visible(at.body['workload'])}" + (f" ({plain.visible(method)})" if method else "")


def _why(at: At) -> str:
    decision = at.part("decision")
    if not decision:
        return ""
    return f", allowed: {plain.joined(decision['reasons'])} (policy {revision(decision['policy_revision'])})"
