"""Taking back what a run holds: on completion, fencing, park, end, and by the kill switch.

A grant that is provably unused is revoked, and its step may start again; one that may have been used is revoked too,
and its step goes where the resume table says: a `once` step is in doubt.
"""

from __future__ import annotations

from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.grants import is_open, provably_unused
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.resume_table import Next, next_for
from stepgrant_broker.domain.state import IN_FLIGHT, Grant, GrantStatus, Step, StepState

SETTLED = frozenset({Next.RECORDED_RESULT, Next.RECORDED_FAILURE})


def revoke(
    journal: Journal,
    grant: Grant,
    cause: str,
    *,
    settled: bool = False,
    meters_back: bool = False,
    stated_unused: bool = False,
) -> None:
    """Revoke one grant. `settled`: its step has an outcome, so nothing comes back but, if asked, the meters.

    `stated_unused`: the SDK said that no tool saw it, and it is dead; it counts as unused.

    Issuers whose revocation is `confirmed` get a second entry once they have confirmed it. An intent of any other
    issuer has failed: its credential never left, and there is nobody to confirm anything.
    """
    if grant.status not in {GrantStatus.ISSUED, GrantStatus.INTENT}:
        return
    if grant.status is GrantStatus.INTENT and grant.revocation is not Revocation.CONFIRMED:
        fail_grant(journal, grant, cause)
        return
    unused = (stated_unused or provably_unused(grant)) and not settled
    body = {"unused": unused, "confirmed": grant.revocation is not Revocation.CONFIRMED}
    if meters_back:
        body["meters_back"] = True
    journal.add_of(grant, EntryType.GRANT_REVOKED, cause=cause, body=body)


def fail_grant(journal: Journal, grant: Grant, detail: str) -> None:
    """Write that the issuer gave nothing that left the broker: all that the grant counted comes back."""
    journal.add_of(grant, EntryType.GRANT_FAILED, body={"detail": detail[:200]})


def doubt(journal: Journal, step: Step, why: str) -> None:
    """Put a step in doubt."""
    journal.add(
        EntryType.STEP_IN_DOUBT,
        step=step.key,
        attempt=step.attempt,
        epoch=step.epoch,
        action=journal.action_of(step),
        cause=why,
        body={"since": journal.now},
    )


def release_all(journal: Journal, cause: str) -> None:
    """Revoke every open grant of the loaded view and settle what that leaves of its steps."""
    in_flight = [step.key for step in journal.view.steps.values() if step.state in IN_FLIGHT]
    unused = {
        step.key: provably_unused(journal.view.grants.get(step.grant or "")) for step in journal.view.steps.values()
    }
    for grant in tuple(journal.view.grants.values()):
        if is_open(grant):
            revoke(journal, grant, cause)
    for key in in_flight:
        step = journal.step(key)
        if step.state in IN_FLIGHT and next_for(step, step.effect, unused=unused[key]) is Next.DOUBT:
            doubt(journal, step, cause)


def give_up_all(journal: Journal, cause: str) -> None:
    """`release_all` after a part of the record was lost: nothing in it counts as unused, or as not begun.

    A grant may have been released, redeemed and used in the part that is gone, and a step that the table would begin
    may have been begun there. So everything is revoked as perhaps used; of the unfinished steps the effectful ones in
    flight are in doubt, and each `once` step that could have been begun.
    """
    for grant in tuple(journal.view.grants.values()):
        if grant.status in {GrantStatus.ISSUED, GrantStatus.INTENT}:
            body = {"unused": False, "confirmed": grant.revocation is not Revocation.CONFIRMED}
            journal.add_of(grant, EntryType.GRANT_REVOKED, cause=cause, body=body)
    for step in tuple(journal.view.steps.values()):
        if _perhaps_begun(step):
            doubt(journal, step, cause)


def _perhaps_begun(step: Step) -> bool:
    if step.recorded or step.same_as is not None or step.state is StepState.IN_DOUBT:
        return False
    if step.state in IN_FLIGHT:
        return step.effect.effectful
    return step.effect is Effect.ONCE and next_for(step, step.effect, unused=False) not in SETTLED
