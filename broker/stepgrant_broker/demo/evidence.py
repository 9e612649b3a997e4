"""What the demo's claims rest on: the targets' own books, and the run's entries out of a verified receipt. Pure.

Each function looks at evidence and gives a `Finding`. They are strict the way an auditor is: what is missing does not
hold, and what is there twice does not hold either.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from stepgrant.receipt import Event
from stepgrant_broker.demo.checks import Finding

Note = Mapping[str, Any]
Books = Mapping[str, Sequence[Note]]

ABOUT_OLDER_EPOCHS: Final = frozenset({"grant_revoked", "step_in_doubt", "step_reconciled"})
"""What the broker itself still writes about an older epoch: it takes back, doubts and settles."""
HELD_BY: Final = frozenset({"run_opened", "run_resumed"})


def read_book(path: Path) -> list[Note]:
    """A target's book so far; a line that is still being written is left for the next look."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def did(book: Iterable[Note], what: str) -> list[Note]:
    """The notes of one kind."""
    return [note for note in book if note.get("did") == what]


def acts(books: Books) -> list[Note]:
    """Everything that was done to a target, by anybody."""
    return [note for book in books.values() for note in book if note.get("did") != "refused"]


def rotated_once(books: Books, targets: Sequence[str]) -> Finding:
    """Each target, and no other, notes exactly one rotation."""
    counts = {name: len(did(book, "rotated")) for name, book in books.items()}
    return Finding(counts == dict.fromkeys(targets, 1), _counted(counts))


def revoked_once(books: Books, keeper: str, keys: Sequence[str]) -> Finding:
    """Old keys were revoked once, by the one target that can, and exactly these."""
    notes = [(name, note) for name, book in books.items() for note in did(book, "revoked_old")]
    holds = len(notes) == 1 and notes[0][0] == keeper and sorted(notes[0][1]["keys"]) == sorted(keys)
    return Finding(holds, "; ".join(f"{name}: {', '.join(note['keys'])}" for name, note in notes) or "no note")


def one_plan(books: Books) -> Finding:
    """All new keys carry the label that the plan drew by chance: no process made a plan of its own."""
    labels = {str(note["key_id"]).rpartition("/")[2] for book in books.values() for note in did(book, "rotated")}
    return Finding(len(labels) == 1, f"labels in the books: {', '.join(sorted(labels)) or 'none'}")


def acts_were_granted(books: Books, events: Sequence[Event]) -> Finding:
    """Each note has a grant of its own, which the ledger shows as redeemed once, for the same step and key."""
    redeemed = Counter(str(event.part("grant").get("jti")) for event in events if event.type == "grant_redeemed")
    keys = {e.step: e.part("body").get("idempotency_key") for e in events if e.type == "step_prepared"}
    notes = acts(books)
    bad = [
        str(note["grant"])
        for note in notes
        if redeemed[str(note["grant"])] != 1
        or not note["redeemed"]
        or keys.get(note["step"]) != note["idempotency_key"]
    ]
    distinct = len({note["grant"] for note in notes}) == len(notes)
    holds = bool(notes) and not bad and distinct
    told = f"{len(notes)} acts under {len({note['grant'] for note in notes})} grants, each redeemed once"
    return Finding(holds, told if holds else f"{told}: not so for {', '.join(bad) or 'a grant used twice'}")


def keys_are_fresh(events: Sequence[Event]) -> Finding:
    """Each opening and resuming was by a key of its own, under the next epoch."""
    held = [event for event in events if event.type in HELD_BY]
    thumbprints = {str(event.part("agent").get("jkt")) for event in held}
    epochs = [event.epoch for event in held]
    holds = len(held) > 1 and len(thumbprints) == len(held) and epochs == list(range(1, len(held) + 1))
    return Finding(holds, f"epochs {', '.join(map(str, epochs))} with {len(thumbprints)} different keys")


def leases_lapsed(events: Sequence[Event]) -> Finding:
    """Each resume was one: the same workload came back after the lease had lapsed or the run was parked."""
    kinds = [
        (e.part("body").get("kind"), e.part("body").get("lease_lapsed")) for e in events if e.type == "run_resumed"
    ]
    holds = bool(kinds) and all(kind == ("resume", True) for kind in kinds)
    return Finding(holds, f"{len(kinds)} resumes, {kinds.count(('resume', True))} after the lease had lapsed")


def fenced_got_nothing(events: Sequence[Event]) -> Finding:
    """Once a newer epoch began, no entry gives anything to an older one, nor takes any outcome from it."""
    newest, late = 0, []
    for event in events:
        if event.type in HELD_BY and event.epoch is not None:
            newest = max(newest, event.epoch)
        elif event.epoch is not None and event.epoch < newest and event.type not in ABOUT_OLDER_EPOCHS:
            late.append(f"{event.type} of epoch {event.epoch}")
    told = f"{len(events)} entries up to epoch {newest}, none of them for a holder that was fenced"
    return Finding(newest > 1 and not late, ", ".join(late) or told)


def grants_are_narrow(events: Sequence[Event], audiences: Mapping[str, str], max_ttl_ms: int) -> Finding:
    """Each grant was for one step at the one address of its resource, lived shortly, and was taken back or spent."""
    issued = [event for event in events if event.type == "grant_issued"]
    revoked = {str(event.part("grant").get("jti")) for event in events if event.type == "grant_revoked"}
    bad = [str(event.part("grant").get("jti")) for event in issued if not _is_narrow(event, audiences, max_ttl_ms)]
    bad += [str(e.part("grant").get("jti")) for e in issued if str(e.part("grant").get("jti")) not in revoked]
    distinct = {str(event.part("grant").get("jti")) for event in issued}
    holds = bool(issued) and not bad and len(distinct) == len(issued)
    told = f"{len(issued)} grants for {len({e.step for e in issued})} steps, each for one address, none alive"
    return Finding(holds, told if holds else f"not so: {', '.join(bad) or 'a grant was issued twice'}")


def _is_narrow(event: Event, audiences: Mapping[str, str], max_ttl_ms: int) -> bool:
    resource, expires, issued = (
        event.disclosed.get("action.resource"),
        event.part("grant").get("exp"),
        event.part("body").get("issued_at"),
    )
    if not isinstance(expires, int) or not isinstance(issued, int):
        return False
    return event.part("body").get("audience") == audiences.get(str(resource)) and 0 < expires - issued <= max_ttl_ms


def approved_by_a_person(events: Sequence[Event], step: str) -> Finding:
    """The step's grant rests on an approval that a person gave before, in an epoch after the one that asked."""
    asked = [e for e in events if e.type == "approval_requested" and e.step == step]
    yes = [e for e in events if e.type == "approval_decided" and e.part("body").get("verdict") == "approve"]
    granted = [e for e in events if e.type == "grant_issued" and e.step == step]
    if not (len(asked) == len(yes) == len(granted) == 1):
        return Finding(holds=False, evidence=f"asked {len(asked)}, answered {len(yes)}, granted {len(granted)} times")
    approvals = {str(e.part("approval").get("id")) for e in (asked[0], yes[0], granted[0])}
    in_order = asked[0].seq < yes[0].seq < granted[0].seq
    fresh = (asked[0].epoch or 0) < (granted[0].epoch or 0)
    kind = yes[0].part("by").get("kind")
    told = f"asked in epoch {asked[0].epoch}, answered by a {kind}, granted in epoch {granted[0].epoch}"
    return Finding(len(approvals) == 1 and in_order and fresh and kind == "person", told)


def settled_by_looking(events: Sequence[Event], step: str) -> Finding:
    """The step was in doubt once, its hook looked under a grant of its own, and found it done; never granted again."""
    kinds = Counter(event.type for event in events if event.step == step)
    verdicts = [e.part("body") for e in events if e.type == "step_reconciled" and e.step == step]
    looked = {e.step for e in events if e.type == "grant_issued"}
    holds = (
        kinds["step_in_doubt"] == kinds["step_reconciled"] == kinds["grant_issued"] == 1
        and verdicts[0].get("verdict") == "done"
        and verdicts[0].get("via") in looked
    )
    via = verdicts[0].get("via") if verdicts else None
    told = f"in doubt {kinds['step_in_doubt']}x, granted {kinds['grant_issued']}x, settled by {via}"
    return Finding(holds, told)


def replayed(events: Sequence[Event], epoch: int) -> set[str]:
    """The steps that gave their recorded result again in this epoch."""
    return {str(event.step) for event in events if event.type == "step_replayed" and event.epoch == epoch}


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}x" for name, number in sorted(counts.items())) or "no books"
