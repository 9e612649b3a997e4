"""What a verified receipt says of itself, in words: the same on a terminal and on a page. Pure.

Rules:
* First what is proven and by what, then what is not in it. No sentence says more than `verify` checked.
* Texts of others in these sentences are made visible here; whoever prints them escapes only what its format needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from stepgrant._receipt_facts import Actor, Approval, Decision, Erased, Grant, Step
from stepgrant._receipt_verified import Verified
from stepgrant.cli import plain
from stepgrant.cli._tell_grants import CAUSES

NO_WITNESS: Final = (
    "No witness was asked for: that everybody is shown the same log is not proven. Verify with a log policy."
)


def when(ms: int | None) -> str:
    """A time in UTC."""
    return "an unknown time" if ms is None else plain.utc(ms)


def verdict(verified: Verified) -> str:
    """The first sentence."""
    entries = plain.count(len(verified.events), "entry", "entries")
    kind, name = verified.scope
    if kind == "run":
        return f"{entries} of {plain.visible(verified.run)}, none changed, moved or missing."
    return f"{entries} of {kind} {plain.visible(name)} in {plain.visible(verified.run)}, none changed or moved."


def proven(verified: Verified) -> Iterator[str]:
    """What stands behind it: the end of the run, the signed head, the log and its witnesses."""
    if verified.complete:
        yield "It is complete: the run has ended, nothing can come after it."
    if verified.kid is not None:
        yield f"The run's head was signed at {when(verified.head_ts)} by the key {plain.visible(verified.kid)}."
    if verified.key_revoked_at is not None:
        at = when(verified.key_revoked_at)
        yield f"That key was revoked at {at}; witnesses that you trust saw these entries in the log before."
    if verified.logged is None:
        return
    log = f"{plain.visible(verified.logged.origin)} of {verified.logged.size} entries"
    by = witnesses(verified)
    told = f"; cosigned by {', '.join(f'{name} at {at}' for name, at in by)}" if by else ""
    yield f"Each entry is in the log {log}, whose head is signed by a key of yours{told}."


def continues(same: int, of: int) -> str:
    """What a comparison with an earlier receipt showed: so many of its entries are in this one, and none is another."""
    if same == of:
        return "It continues the earlier receipt: nothing in it was rewritten."
    some = plain.count(of, "entry", "entries")
    return f"It has {same} of the earlier receipt's {some}: none of these was rewritten. The others were not compared."


def witnesses(verified: Verified) -> list[tuple[str, str]]:
    """Who cosigned the log's head, of those that were asked for, and when."""
    if verified.logged is None:
        return []
    return [(plain.visible(name), when(seconds * 1000)) for name, seconds in verified.logged.cosigned.items()]


def missing(verified: Verified) -> Iterator[str]:
    """What is not in it, as sentences; one where nothing is missing."""
    for gap in verified.missing:
        yield f"{plain.visible(gap.text[:1].upper() + gap.text[1:])}."
    if not verified.missing:
        yield "Nothing: it has every entry of the run, every value and every policy text."


def erased(one: Erased) -> str:
    """What happened to the values."""
    cause = f" ({plain.visible(one.cause)})" if one.cause else ""
    return (
        f"The values of this run were erased at {when(one.at)} by {who(one.who)}{cause}. The entries still prove what "
        "happened; what their commitments stand for cannot be shown or guessed any more."
    )


def who(actor: Actor) -> str:
    """An actor, by the best name that the receipt has."""
    named = actor.subject or actor.id
    kind = actor.kind.replace("_", " ")
    if named is None:
        told = f"a {plain.visible(kind)}" if actor.kind != "broker" else "the broker"
    else:
        told = f"{plain.visible(kind)} {plain.visible(named)}"
    if actor.subject and actor.id and actor.id not in actor.subject:
        told += f" ({plain.visible(actor.id)})"
    if actor.agent:
        version = f" {plain.visible(actor.version)}" if actor.version else ""
        told += f", agent {plain.visible(actor.agent)}{version}"
    if actor.epoch is not None:
        told += f", epoch {actor.epoch}"
    if actor.attested:
        told += f", attested by {plain.visible(actor.attested.replace('_', ' '))}"
    return told


def end_of(grant: Grant) -> str:
    """How a credential ended."""
    at = when(grant.revoked_at)
    cause = CAUSES.get(grant.cause or "", plain.visible(grant.cause or "no cause is given"))
    unused = ", provably never used" if grant.unused else ""
    expires = when(grant.expires_at)
    match grant.end:
        case "failed":
            return f"no credential was released: {plain.visible(grant.failed)}"
        case "cannot_be_revoked":
            back = f"; its grant ended at {at}: {cause}" if grant.revoked_at is not None else ""
            return f"cannot be revoked: who has this secret still has it{back}"
        case "open":
            return f"not revoked in this receipt; it expires at {expires}"
        case "confirmed":
            return (
                f"revoked at {at}{unused}: {cause}; its issuer confirmed at {when(grant.confirmed_at)} that it is dead"
            )
        case "unconfirmed":
            return f"revoked at {at}{unused}: {cause}; the issuer's confirmation is not in this receipt"
        case "refused":
            return f"revoked at {at}{unused}: {cause}; nobody can redeem it after that"
        case _:
            return f"taken back at {at}: {cause}; a copy of it may work until it expires at {expires}"


def outcome(step: Step) -> str:
    """What a step came to."""
    if step.status is not None:
        return plain.visible(step.status.replace("_", " "))
    last = step.decisions[-1].effect if step.decisions else None
    return {"deny": "denied", "require_approval": "a person has to answer"}.get(last or "", "no outcome")


def asked(approval: Approval) -> str:
    """Whom a question went to."""
    people = plain.joined(approval.groups, "any approver")
    quorum = f"{approval.quorum} of {people}" if approval.quorum and approval.quorum > 1 else people
    return f"asked {quorum} at {when(approval.asked_at)}" if approval.asked_at is not None else "asked before"


def answered(approval: Approval) -> Iterator[str]:
    """Each answer."""
    for one in approval.answers:
        said = {"approve": "approved", "deny": "denied"}.get(one.verdict or "", plain.visible(one.verdict))
        note = f", saying {plain.json_line(one.note)}" if one.note is not None else ""
        yield f"{who(one.who)} {said} it at {when(one.at)}{note}"


def decided(decision: Decision) -> str:
    """One decision."""
    return f"{plain.visible(decision.effect)}: {plain.joined(decision.reasons, 'no reason')}"
