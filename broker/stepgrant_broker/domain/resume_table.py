"""What resume does with a step: the table of `protocol.md` §4, and nothing else.

`classify` turns a step and its newest grant into a row of the table; the table says what comes next.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.state import FailStatus, Step, StepState


class Last(StrEnum):
    """The last recorded state of a step (the table's rows)."""

    NOTHING_GRANTED = "nothing_granted"
    UNUSED = "granted_provably_unused"
    PERHAPS_USED = "granted_perhaps_used"
    NOT_EXECUTED = "failed_not_executed"
    FAILED = "failed_after_executing"
    AWAITING = "awaiting_approval"
    SUSPENDED_UNUSED = "suspended_provably_unused"
    SUSPENDED_PERHAPS_USED = "suspended_perhaps_used"
    IN_DOUBT = "in_doubt"
    COMPLETED = "completed"


class Next(StrEnum):
    """What to do (the table's cells)."""

    DECIDE = "decide_again"
    DECIDE_SAME_ATTEMPT = "revoke_then_decide_again"
    DECIDE_NEW_ATTEMPT = "decide_again_new_attempt"
    RETRY_IF_ALLOWED = "new_attempt_if_the_tool_allows_retries_else_recorded_failure"
    RECORDED_FAILURE = "recorded_failure"
    DOUBT = "in_doubt"
    RECORDED_RESULT = "recorded_result"


def _row(read: Next, idempotent: Next | None = None, once: Next | None = None) -> Mapping[Effect, Next]:
    return MappingProxyType({Effect.READ: read, Effect.IDEMPOTENT: idempotent or read, Effect.ONCE: once or read})


TABLE: Final[Mapping[Last, Mapping[Effect, Next]]] = MappingProxyType(
    {
        Last.NOTHING_GRANTED: _row(Next.DECIDE),
        Last.UNUSED: _row(Next.DECIDE_SAME_ATTEMPT),
        Last.PERHAPS_USED: _row(Next.DECIDE_NEW_ATTEMPT, Next.DECIDE_NEW_ATTEMPT, Next.DOUBT),
        Last.NOT_EXECUTED: _row(Next.DECIDE_NEW_ATTEMPT),
        Last.FAILED: _row(Next.RETRY_IF_ALLOWED, Next.RETRY_IF_ALLOWED, Next.RECORDED_FAILURE),
        Last.AWAITING: _row(Next.DECIDE),
        Last.SUSPENDED_UNUSED: _row(Next.DECIDE_SAME_ATTEMPT),
        Last.SUSPENDED_PERHAPS_USED: _row(Next.DECIDE_NEW_ATTEMPT, Next.DECIDE_NEW_ATTEMPT, Next.DOUBT),
        Last.IN_DOUBT: _row(Next.DOUBT),
        Last.COMPLETED: _row(Next.RECORDED_RESULT),
    }
)


def classify(step: Step, *, unused: bool) -> Last:
    """The table's row for this step; `unused` says whether its newest grant is provably unused."""
    match step.state:
        case StepState.PREPARED | StepState.DENIED:
            return Last.NOTHING_GRANTED
        case StepState.AWAITING_APPROVAL:
            return Last.AWAITING
        case StepState.STARTED:
            return Last.UNUSED if unused else Last.PERHAPS_USED
        case StepState.SUSPENDED:
            return Last.SUSPENDED_UNUSED if unused else Last.SUSPENDED_PERHAPS_USED
        case StepState.FAILED:
            return _failed(step)
        case StepState.IN_DOUBT:
            return Last.IN_DOUBT
        case StepState.COMPLETED | StepState.RECORDED:
            return Last.COMPLETED
        case StepState.ADOPTED:
            raise LookupError("a step that is only another name has no row of its own")


def _failed(step: Step) -> Last:
    match step.fail_status:
        case FailStatus.NOT_EXECUTED:
            return Last.NOT_EXECUTED
        case FailStatus.UNKNOWN:
            # The tool raised, which does not say that nothing happened (`integrations.md` R7).
            return Last.PERHAPS_USED
        case FailStatus.FAILED | None:
            return Last.FAILED


def next_for(step: Step, effect: Effect, *, unused: bool) -> Next:
    """The table's cell, with the tool's wish to retry failures applied."""
    cell = TABLE[classify(step, unused=unused)][effect]
    if cell is Next.RETRY_IF_ALLOWED:
        return Next.DECIDE_NEW_ATTEMPT if step.retry_failed else Next.RECORDED_FAILURE
    return cell
