"""Calls that come back after a crash under another id: a framework asks its model again and gets new ones.

Rules (`protocol.md` §4):
* A new call that equals a step (tool and digest) whose outcome is unknown since an earlier epoch becomes that step,
  once in an epoch. Never within one epoch: there, two equal calls are two.
* A `once` step in doubt blocks new `once` steps of its tool: those on the same resource if the doubt is of an earlier
  epoch, whose caller may have put the same intention into other words; in its own epoch equal ones, which are a retry.
* A call that equals a completed step of an earlier epoch, not given again in this one, may be that step once more:
  policy, or a person, says so (`duplicates.py`). The word stands: a question is not put again under each new id.
* Only keys that are call ids are lost. One that its author keeps comes back as itself.
* All is decided on what is loaded. `wider` says when that is not enough; for a call of a run's first epoch it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from stepgrant import canonical
from stepgrant_broker.domain.calls import StepCall
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.fold.approvals import UNDECIDED
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.state import IN_FLIGHT, FailStatus, IdSource, Run, Step, StepState
from stepgrant_broker.domain.writes import Loaded, Query, Sought

Peek = Callable[[str, canonical.JsonValue], str]
"""The commitment to the value of a field."""


def wider(query: Query, loaded: Loaded, call: StepCall, peek: Callable[[], Peek]) -> Query | None:
    """What has to be loaded instead to decide about this call; `None` for nearly all: what is there is enough."""
    run, known = loaded.view.run, loaded.view.steps.get(call.step)
    if run is None:
        return None
    if known is not None:
        meant = known.same_as or (known.duplicate_of if is_suspected(known) else None)
        return None if meant is None else replace(query, step=meant, also=(*query.also, call.step))
    lost = run.epoch > 1 and call.id_source is IdSource.CALL_ID
    doubt = call.effect is Effect.ONCE and "in_doubt" in run.history.outcomes
    if not lost and not doubt:
        return None
    commit = peek()
    digest_c = commit("action.digest", call.digest)
    resource_c = None if call.resource is None else commit("action.resource", call.resource)
    return replace(query, sought=Sought(call.tool, digest_c, resource_c, lost=lost, doubt=doubt))


def is_suspected(step: Step) -> bool:
    """True while nobody said whether this call is the completed step `duplicate_of` once more."""
    return (
        step.duplicate_of is not None and step.duplicate is None and not step.started_ever and step.state in UNDECIDED
    )


def meant_by(journal: Journal, call: StepCall) -> StepCall:
    """The call as one of the step that it is; recorded where that is another step than it names."""
    known = journal.view.steps.get(call.step)
    if known is not None:
        return call if known.same_as is None else replace(call, step=known.same_as)
    meant = _adopted(journal, call)
    if meant is None:
        return call
    action = journal.action_of(meant)
    journal.add(EntryType.STEP_ADOPTED, step=call.step, attempt=meant.attempt, action=action, body={"from": meant.key})
    return replace(call, step=meant.key)


def _adopted(journal: Journal, call: StepCall) -> Step | None:
    """The step of an earlier epoch that this new call is."""
    if call.id_source is not IdSource.CALL_ID:
        return None
    run = journal.run
    waiting = [step for step in journal.view.steps.values() if _waits(step) and _is_before(step, run)]
    # A step that may have happened comes before a question about one that has not.
    equal = sorted(_equal(journal, call, waiting), key=lambda step: (not _is_unknown(step), step.position))
    return equal[0] if equal else None


def _is_before(step: Step, run: Run) -> bool:
    """True if an earlier epoch left it so, and no call of this epoch is it already."""
    if step.state is StepState.COMPLETED:
        return _is_unclaimed(step, run)
    return step.epoch < run.epoch and step.adopted_epoch < run.epoch


def _waits(step: Step) -> bool:
    """True if the step waits for its call: its outcome is unknown, or people were asked about the call or answered."""
    if step.state is StepState.COMPLETED:
        return step.duplicate == "replay"
    asked = step.duplicate_of is not None and step.state in UNDECIDED and not step.started_ever
    return asked or _is_unknown(step)


def _is_unknown(step: Step) -> bool:
    match step.effect:
        case Effect.READ:
            return False
        case Effect.ONCE:
            return step.state is StepState.IN_DOUBT
        case Effect.IDEMPOTENT:
            # The same idempotency key makes it safe to go on with; under a key of its own it would be done twice.
            failed = step.state is StepState.FAILED and step.fail_status is FailStatus.UNKNOWN
            return failed or step.state in IN_FLIGHT


def _equal(journal: Journal, call: StepCall, steps: Iterable[Step]) -> list[Step]:
    same_tool = [step for step in steps if step.tool == call.tool and step.key != call.step]
    if not same_tool:
        return []
    digest_c = journal.commit.peek("action.digest", call.digest)
    return [step for step in same_tool if step.digest_c == digest_c]


def blocking(journal: Journal, call: StepCall) -> Step | None:
    """The step in doubt that has to be settled before this new call can be a step of its own."""
    if call.effect is not Effect.ONCE:
        return None
    steps = journal.view.steps.values()
    doubts = [step for step in steps if step.state is StepState.IN_DOUBT and step.tool == call.tool]
    if not doubts:
        return None
    resource_c = None if call.resource is None else journal.commit.peek("action.resource", call.resource)
    older = [step for step in doubts if step.epoch < journal.run.epoch and step.resource_c == resource_c]
    return min([*older, *_equal(journal, call, doubts)], key=lambda step: step.position, default=None)


def repeated(journal: Journal, call: StepCall) -> str | None:
    """The key of the completed step that this new call may be once more."""
    if call.id_source is not IdSource.CALL_ID:
        return None
    run = journal.run
    done = [step for step in journal.view.steps.values() if _is_unclaimed(step, run)]
    equal = _equal(journal, call, done)
    return min(equal, key=lambda step: step.position).key if equal else None


def _is_unclaimed(step: Step, run: Run) -> bool:
    completed = step.state is StepState.COMPLETED and step.id_source is IdSource.CALL_ID
    return completed and max(step.replayed_epoch, step.adopted_epoch) < run.epoch


def still_repeated(journal: Journal, step: Step) -> str | None:
    """The same for a step that is known: until somebody answered, or the completed step was given again by itself."""
    if not is_suspected(step):
        return None
    completed = journal.view.steps.get(step.duplicate_of or "")
    claimed = completed is not None and not _is_unclaimed(completed, journal.run)
    return None if claimed else step.duplicate_of
