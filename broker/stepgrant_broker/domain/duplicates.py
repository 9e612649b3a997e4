"""A call that may be a completed step once more: what policy or a person says of it (`protocol.md` §4).

Rules:
* `replay`: it is the completed step; its result is given again and nothing is granted. `run`: it is another call.
* Policy may say so for a tool; otherwise a person does, once, about a call of which nothing was started. A workload
  never answers: it is the one that does not know.
"""

from __future__ import annotations

from stepgrant_broker.domain import deciding
from stepgrant_broker.domain.calls import Ask, Replayed, StepCall
from stepgrant_broker.domain.decisions import Decided
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import InvalidRequest
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.lost_ids import is_suspected
from stepgrant_broker.domain.outcomes import known_step
from stepgrant_broker.domain.state import Step
from stepgrant_broker.domain.steps import replay

VERDICTS = frozenset({"replay", "run"})


def replay_by_policy(journal: Journal, call: StepCall, ask: Ask, decided: Decided, *, phase: str) -> Replayed | None:
    """The completed step's outcome, if policy says that this call is it; `None` if policy does not."""
    completed = None if ask.equal_to is None else journal.view.steps.get(ask.equal_to)
    if completed is None:
        return None
    decision = deciding.close(decided.decision, call)
    if deciding.word_on_duplicate(ask, decision) != "replay":
        return None
    action = journal.action_of(completed)
    member = deciding.decision_member(journal, decided, decision)
    deciding.write_decision(journal, call, ask, action, member, phase=phase, engine=decided.engine, duplicate="replay")
    journal.add(
        EntryType.STEP_ADOPTED,
        step=call.step,
        attempt=completed.attempt,
        action=action,
        body={"from": completed.key},
    )
    return Replayed(replay(journal, journal.step(completed.key)))


def decide(journal: Journal, key: str, verdict: str, *, operator: str, note: str | None) -> Step:
    """Record a person's word on a suspected duplicate. Raises `UnknownStep`, `StepDrift`, `InvalidRequest`."""
    step = known_step(journal, key)
    if verdict not in VERDICTS:
        raise InvalidRequest("verdict is replay or run", field="verdict")
    if not is_suspected(step):
        raise InvalidRequest("nobody asks whether this step repeats another one", field="step")
    body = {"verdict": verdict, "of": step.duplicate_of, "operator": operator}
    if note is not None:
        body["note_c"] = journal.commit.value("duplicate.note", note)
    journal.add(
        EntryType.DUPLICATE_DECIDED,
        step=key,
        attempt=step.attempt,
        epoch=step.epoch,
        action=journal.action_of(step),
        body=body,
    )
    return journal.step(key)
