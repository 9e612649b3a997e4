"""The step's machine before policy is asked: what is known, what drifted, what the resume table says.

Rules:
* A completed key returns its recorded outcome; nothing is issued for it again.
* Effect and idempotency key are fixed at the first prepare. A started or completed key never accepts another action.
  Before anything was started, other arguments under a call id or explicit id are a new revision; under an ordinal
  they are drift.
* `prepare` is advice: it never takes back what runs (`act=False`).
* A call is about the step that it names, unless its id was lost (`lost_ids.py`).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from stepgrant_broker.domain import lost_ids
from stepgrant_broker.domain.calls import Ask, BeingRevoked, Doubtful, Replayed, Settled, StepCall
from stepgrant_broker.domain.decisions import Effect, RedeemMode
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import BudgetExhausted, InvalidRequest, PriorCredentialLive, StepDrift
from stepgrant_broker.domain.grants import dead_at, live_effectful, provably_unused
from stepgrant_broker.domain.ids import STEP_KEY, default_idempotency_key, parent_of
from stepgrant_broker.domain.journal import Journal
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.releasing import doubt, revoke
from stepgrant_broker.domain.resume_table import Next, next_for
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import Grant, GrantStatus, IdSource, Step, StepState

CONFIRMING_MS = 500
"""When to come again while an issuer's confirmation is waited for; nobody knows how long that takes."""


def refuse_bad_key(key: str) -> None:
    """Raises `InvalidRequest` unless the key is in the alphabet and not one of the broker's own."""
    if not STEP_KEY.fullmatch(key) or key.startswith("~"):
        raise InvalidRequest("a step key is 1 to 200 of A-Z a-z 0-9 . _ : ~ - and does not begin with ~", field="step")


def meant(journal: Journal, call: StepCall) -> StepCall:
    """The call as one of the step that it is about. Raises `InvalidRequest`."""
    refuse_bad_key(call.step)
    return lost_ids.meant_by(journal, call)


def _same_action(journal: Journal, step: Step, call: StepCall) -> bool:
    return (
        step.tool == call.tool
        and step.digest_c == journal.commit.peek("action.digest", call.digest)
        and step.resource_c
        == (None if call.resource is None else journal.commit.peek("action.resource", call.resource))
    )


def _refuse_drift(journal: Journal, step: Step, call: StepCall) -> bool:
    """True when the call is a new revision of a step of which nothing was started. Raises `StepDrift`."""
    if step.recorded:
        raise StepDrift("this key is a recorded step; an action needs a key of its own", field="step")
    if call.effect is not step.effect:
        raise StepDrift(f"the effect was fixed as {step.effect.value} when the step was prepared", field="effect")
    if call.idempotency_key is not None and call.idempotency_key != step.idempotency_key:
        raise StepDrift("the idempotency key was fixed when the step was prepared", field="idempotency_key")
    if _same_action(journal, step, call):
        return False
    if step.started_ever or step.state.done or step.state is StepState.IN_DOUBT:
        raise StepDrift("this step was started with another action", field="action")
    if step.id_source is IdSource.ORDINAL or call.id_source is IdSource.ORDINAL:
        raise StepDrift(
            "the call at this position has other arguments than before; give the tool a step_id=", field="action"
        )
    return True


def consider(
    journal: Journal, call: StepCall, limits: Limits, *, act: bool, request: str = ""
) -> Settled | Ask | BeingRevoked:
    """What is to be answered without policy, or what policy must be asked, for a call that is `meant` so.

    `request` scopes a lost reply. Raises `InvalidRequest`, `StepDrift`, `BudgetExhausted`, `PriorCredentialLive`.
    """
    refuse_bad_key(call.step)
    step = journal.view.steps.get(call.step)
    if step is None:
        if journal.run.step_count >= limits.max_steps:
            raise BudgetExhausted(f"a run has at most {limits.max_steps} steps")
        result: Settled | Ask = _new(journal, call)
    elif _refuse_drift(journal, step, call):
        result = Ask(attempt=step.attempt, revision=step.revision + 1, new=True, previous_outcome=None)
    elif act and (lost := _lost(journal, step, call, request)) is not None:
        revoke(journal, lost, "not_received")
        return BeingRevoked(step.key)
    else:
        result = _by_table(journal, step, act=act, stated=_stated_unused(journal, step, call, limits, request))
    if act and isinstance(result, Ask):
        refuse_prior_credential(journal, call, limits)
    return result


def _new(journal: Journal, call: StepCall) -> Settled | Ask:
    doubtful = lost_ids.blocking(journal, call)
    if doubtful is not None:
        return Doubtful(doubtful, blocked=True)
    equal_to = lost_ids.repeated(journal, call)
    return Ask(attempt=1, revision=1, new=True, previous_outcome=None, equal_to=equal_to)


def _lost(journal: Journal, step: Step, call: StepCall, request: str) -> Grant | None:
    """The credential of this very request that the SDK never received, if only its issuer can end it.

    Waiting would not kill it: it is taken back now, so that its death can be confirmed.
    """
    grant = journal.view.grants.get(step.grant or "")
    if not call.not_received or grant is None or not request or grant.request != request or _was_used(grant):
        return None
    ends = grant.revocation is Revocation.CONFIRMED and grant.redeem is RedeemMode.OPTIONAL
    return grant if ends and grant.status is GrantStatus.ISSUED and step.effect is Effect.ONCE else None


def _stated_unused(journal: Journal, step: Step, call: StepCall, limits: Limits, request: str) -> bool:
    """True when the SDK states that no tool ever saw the credential of this very request, and it is dead by now.

    Raises `PriorCredentialLive` while it may live: the statement alone kills nothing. Only a `once` step waits for
    that; where the table allows a new attempt in any case, waiting would gain nothing. The statement counts for
    nothing where the record says otherwise: a server redeemed it.
    """
    if step.effect is not Effect.ONCE:
        return False
    grant = journal.view.grants.get(step.grant or "")
    if not call.not_received or grant is None or not request or grant.request != request or provably_unused(grant):
        return False
    if _was_used(grant):
        return False
    if grant.redeem is RedeemMode.REQUIRED:
        return True  # that it is revoked now kills it: no server has redeemed it, and none will
    dead = dead_at(grant, limits.leeway_ms)
    if dead is None or dead > journal.now:
        asked = CONFIRMING_MS if grant.revocation is Revocation.CONFIRMED else None
        wait = asked if dead is None else dead - journal.now
        raise PriorCredentialLive("the credential that was not received may still work", retry_after_ms=wait)
    return True


def _was_used(grant: Grant) -> bool:
    """A tool saw it, whatever the agent says: else one approval would be worth any number of effects."""
    return grant.redeemed_at is not None


def _by_table(journal: Journal, step: Step, *, act: bool, stated: bool) -> Settled | Ask:
    grant = journal.view.grants.get(step.grant or "")
    match next_for(step, step.effect, unused=stated or provably_unused(grant)):
        case Next.RECORDED_RESULT | Next.RECORDED_FAILURE:
            return Replayed(replay(journal, step))
        case Next.DOUBT:
            return Doubtful(_doubt(journal, step, grant) if act else step)
        case Next.DECIDE:
            ask = Ask(step.attempt, step.revision, new=False, previous_outcome=step.previous_outcome)
            return replace(ask, equal_to=lost_ids.still_repeated(journal, step))
        case Next.DECIDE_SAME_ATTEMPT:
            if act and grant is not None:
                revoke(journal, grant, "superseded", stated_unused=stated)
            return Ask(step.attempt, step.revision, new=False, previous_outcome=step.state.value)
        case Next.DECIDE_NEW_ATTEMPT | Next.RETRY_IF_ALLOWED:
            if act and grant is not None:
                revoke(journal, grant, "superseded", settled=True)
            attempt = step.attempt + 1 if act or step.state is StepState.FAILED else step.attempt
            return Ask(attempt, step.revision, new=False, previous_outcome=(step.fail_status or step.state).value)


def asked_next(journal: Journal, step: Step) -> Ask | None:
    """What policy would be asked if the step were begun now; `None` where the table asks nobody, or people."""
    cell = next_for(step, step.effect, unused=provably_unused(journal.view.grants.get(step.grant or "")))
    if cell in {Next.RECORDED_RESULT, Next.RECORDED_FAILURE, Next.DOUBT}:
        return None
    ask = _by_table(journal, step, act=False, stated=False)
    if not isinstance(ask, Ask):
        return None
    return replace(ask, attempt=step.attempt + 1) if cell is Next.DECIDE_NEW_ATTEMPT else ask


def _doubt(journal: Journal, step: Step, grant: Grant | None) -> Step:
    if step.state is not StepState.IN_DOUBT:
        if grant is not None:
            revoke(journal, grant, "outcome_unknown")
        doubt(journal, step, "outcome_unknown")
    return journal.step(step.key)


def replay(journal: Journal, step: Step) -> Step:
    """Record that the outcome was given again; only the first time in an epoch is an entry."""
    if step.replayed_epoch == journal.run.epoch:
        return step
    journal.add(
        EntryType.STEP_REPLAYED,
        step=step.key,
        attempt=step.attempt,
        action=journal.action_of(step),
        body={"as": step.state.value},
    )
    return journal.step(step.key)


def refuse_prior_credential(journal: Journal, call: StepCall, limits: Limits) -> None:
    """An effectful start waits until what older epochs held is dead. Raises `PriorCredentialLive`."""
    if not call.effect.effectful:
        return
    live = live_effectful(journal.view.grants.values(), journal.run.epoch, journal.now, limits.leeway_ms)
    if live is not None:
        grant, until = live
        wait = CONFIRMING_MS if until is None else until - journal.now
        raise PriorCredentialLive(
            f"a credential of epoch {grant.epoch} for step {grant.step} may still work",
            retry_after_ms=wait,
            step=grant.step,
        )


def prepare(journal: Journal, call: StepCall, ask: Ask) -> dict[str, Any]:
    """Write that the step (or its next attempt, or revision) is prepared, where it is not; the action member."""
    action = {
        "tool": call.tool,
        "resource_c": journal.commit.maybe("action.resource", call.resource),
        "digest_c": _digest_c(journal, call),
        "effect": str(call.effect),
    }
    step = journal.view.steps.get(call.step)
    if step is not None and not ask.new and step.attempt == ask.attempt:
        return action
    position = step.position if step is not None else journal.run.step_count + 1
    key = call.idempotency_key or default_idempotency_key(journal.run.id, call.step)
    body: dict[str, Any] = {
        "idempotency_key": step.idempotency_key if step is not None else key,
        "id_source": str(call.id_source),
        "settle_ms": call.settle_ms,
        "retry_failed": call.retry_failed,
        "digest_only": call.preimage is None,
        "position": position,
        "revision": ask.revision,
    }
    if (parent := parent_of(call.step)) is not None:
        body["parent"] = parent
    if ask.equal_to is not None:
        body["duplicate_of"] = ask.equal_to
    journal.add(EntryType.STEP_PREPARED, step=call.step, attempt=ask.attempt, action=action, body=body)
    return action


def _digest_c(journal: Journal, call: StepCall) -> str:
    if call.preimage is not None:
        return journal.commit.digest("action.digest", call.preimage)
    return journal.commit.value("action.digest", call.digest)
