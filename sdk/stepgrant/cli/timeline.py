"""A run's events, told as a story that a person can follow. Pure: the events of a receipt in, a `Story` out.

Rules:
* Only what the entries say is told, in their order: a broker that is asked and a receipt in a drawer tell the same.
* Between two events of the run (opened, resumed, parked, ended, ...) all lines of one step stand together, also where
  steps ran side by side.
* What was not disclosed is left out, never guessed. An entry of an unknown type is told as that, not dropped.
* Values of others are made visible here (`plain.visible`), so that no face can forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from stepgrant.cli import _tell_approvals, _tell_grants, _tell_runs, _tell_steps, plain
from stepgrant.cli._telling import At, Block, Line, Mark, Story, Teller
from stepgrant.receipt import Event

__all__ = ["Block", "Line", "Mark", "Story", "as_json", "tell"]

Handler = Callable[[Teller, At], None]
_HANDLERS: Final[Mapping[str, Handler]] = {
    "run_opened": _tell_runs.opened,
    "run_resumed": _tell_runs.resumed,
    "run_parked": _tell_runs.parked,
    "run_quarantined": _tell_runs.quarantined,
    "run_released": _tell_runs.released,
    "run_restored": _tell_runs.restored,
    "run_ended": _tell_runs.ended,
    "run_erased": _tell_runs.erased,
    "step_prepared": _tell_steps.prepared,
    "decision": _tell_steps.decided,
    "step_recorded": _tell_steps.recorded,
    "step_replayed": _tell_steps.replayed,
    "step_adopted": _tell_steps.adopted,
    "duplicate_decided": _tell_steps.duplicate_decided,
    "step_completed": _tell_steps.completed,
    "step_failed": _tell_steps.failed,
    "step_suspended": _tell_steps.suspended,
    "step_in_doubt": _tell_steps.in_doubt,
    "step_reconciled": _tell_steps.reconciled,
    "approval_requested": _tell_approvals.requested,
    "approval_decided": _tell_approvals.decided,
    "grant_issued": _tell_grants.issued,
    "grant_failed": _tell_grants.failed,
    "lease_recorded": _tell_grants.lease_recorded,
    "grant_redeemed": _tell_grants.redeemed,
    "grant_revoked": _tell_grants.revoked,
}


def tell(events: Iterable[Event], *, now: int | None = None) -> Story:
    """The story of one run.

    Args:
        events: the run's events in their order, as `stepgrant.receipt.verify` gives them.
        now: milliseconds since the epoch, for a run that has not ended; `None`: the last event's time.
    """
    teller = Teller()
    for event in events:
        at = teller.take(event)
        try:
            _HANDLERS.get(at.type, _unknown)(teller, at)
        except (KeyError, TypeError, ValueError, AttributeError):
            # Whoever signed a receipt decides what is in it; a body of another shape must not keep the rest untold.
            teller.say(at, Mark.PLAIN, f"{plain.visible(at.type)}: this entry has not what its type should have")
    return teller.finish(now)


def _unknown(teller: Teller, at: At) -> None:
    teller.say(at, Mark.PLAIN, f"an entry of a newer kind: {plain.visible(at.type)}")


def as_json(story: Story) -> dict[str, Any]:
    """The story as JSON values, with offsets from the run's opening in milliseconds."""
    return {
        "run": story.run,
        "key": story.key,
        "agent": story.agent,
        "state": story.state,
        "opened_at": story.opened_at,
        "ended_at": story.ended_at,
        "blocks": [
            {
                "step": block.step,
                "title": block.title,
                "facts": list(block.facts),
                "lines": [{"at_ms": line.at, "mark": line.mark.value, "text": line.text} for line in block.lines],
            }
            for block in story.blocks
        ],
        "totals": dict(story.totals),
        "open": list(story.open),
    }
