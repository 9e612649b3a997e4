"""What an agent's side raises about steps and runs; with `_errors_base` all of it.

Public as `stepgrant.errors`, which draws the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgrant._errors_base import (
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    CredentialMisuse,
    KeyLost,
    NotExecuted,
    NotJson,
    OrdinalUnderConcurrency,
    ResultWithheld,
    SecretInResult,
    StepgrantError,
    _revive,  # noqa: F401 - pickles of before name it here
    with_wait,
)

__all__ = [
    "ApprovalRequired",
    "AuthenticationFailed",
    "BrokerError",
    "BrokerUnavailable",
    "ConfigurationError",
    "CredentialMisuse",
    "Denied",
    "InDoubt",
    "KeyLost",
    "LeaseHeld",
    "NotExecuted",
    "NotJson",
    "OrdinalUnderConcurrency",
    "PriorCredentialLive",
    "Quarantined",
    "ResultWithheld",
    "RunEnded",
    "RunNotHeld",
    "SecretInResult",
    "SetAside",
    "StaleEpoch",
    "StepDrift",
    "StepFailed",
    "StepNotRun",
    "StepgrantError",
    "SuspectedDuplicate",
]

# --------------------------------------------------------------------------------------------- the tool did not run


class StepNotRun(StepgrantError):
    """The broker's outcome is not to run the tool now."""

    code = "step_not_run"


class Denied(StepNotRun):
    """Policy says no. `reasons` are stable codes; `decision_id` finds the decision in the ledger.

    `tool`, `step` and `run` (its id): of a call that was denied; None of anything else, as of opening a run.
    """

    code = "policy_denied"

    def __init__(
        self,
        *,
        reasons: Sequence[str] = (),
        decision_id: str | None = None,
        tool: str | None = None,
        step: str | None = None,
        run: str | None = None,
    ) -> None:
        what = f"{tool} (step {step}) is denied by policy" if tool else "denied by policy"
        cure = f"; `stepgrant policy explain {run} {step}` says why" if run and step else ""
        super().__init__(f"{what}: {', '.join(reasons) or 'no reason given'} (decision {decision_id}){cure}")
        self.reasons = tuple(reasons)
        self.decision_id = decision_id
        self.tool, self.step, self.run = tool, step, run


class ApprovalRequired(StepNotRun):
    """A person must answer first. `answer_by` is in milliseconds since the epoch, or None."""

    code = "approval_required"

    def __init__(self, *, approval_id: str | None = None, answer_by: int | None = None) -> None:
        super().__init__(f"a person must approve this action first (approval {approval_id})")
        self.approval_id = approval_id
        self.answer_by = answer_by


class InDoubt(StepNotRun):
    """A `once` step may already have happened. `options` are the ways to settle it.

    `blocked`: the call was another one, for the same tool and resource, and waits until `step` is settled.
    """

    code = "step_in_doubt"

    def __init__(
        self,
        *,
        step: str | None = None,
        why: str = "",
        options: Sequence[str] = (),
        attempt: int | None = None,
        blocked: bool = False,
    ) -> None:
        waits = ", and this call of the same tool and resource waits for that" if blocked else ""
        what = why if step is None else f"step {step!r} may already have happened ({why})"
        cure = ", ".join(options) or "reconcile, or `stepgrant step reconcile`"
        super().__init__(f"{what}{waits}; settle it: {cure}")
        self.step = step
        self.why = why
        self.options = tuple(options)
        self.attempt = attempt
        self.blocked = blocked


class SuspectedDuplicate(StepNotRun):
    """The call equals a completed step of an earlier epoch, `of`, that was not replayed in this one.

    A person says of `step` whether it is that one once more (`replay`) or another call (`run`); a workload cannot.
    """

    code = "suspected_duplicate"

    def __init__(
        self, *, of: str | None = None, options: Sequence[str] = (), step: str | None = None, why: str = ""
    ) -> None:
        said = f" ({why})" if why else ""
        super().__init__(
            f"step {step!r} equals the completed step {of!r}{said}; a person says which it is: "
            f"{', '.join(options) or 'replay, run'}"
        )
        self.step = step
        self.of = of
        self.options = tuple(options)


class StepDrift(StepNotRun):
    """A known step key came with another action, effect or idempotency key, or with another result.

    `tool`, `step` and `run` (its id): of the call. `differs`: what is another one than before (`tool`, `resource`,
    `arguments`, `effect`, ...). `before`: the tool that the key stands for, where it is another one. `ran`: the
    function may have been called before the broker was asked; otherwise nothing was done.
    """

    code = "step_drift"

    def __init__(
        self,
        message: str = "this step was another one before",
        *,
        tool: str | None = None,
        step: str | None = None,
        run: str | None = None,
        differs: str | None = None,
        before: str | None = None,
        ran: bool = False,
    ) -> None:
        what = f"{tool} (step {step}): " if step else ""
        other = f"; the step was {before} before" if before else f"; another {differs} than before" if step else ""
        nothing = "" if ran else " Nothing was done."
        cure = (
            f".{nothing} A step id stands for one action: give calls that differ step ids that differ "
            "(step_id= or .with_id(...)), and a program that was changed another run key"
        )
        super().__init__(f"{what}{message}{other}{cure if step else ''}")
        self.tool, self.step, self.run = tool, step, run
        self.differs, self.before, self.ran = differs, before, ran


class StepFailed(StepNotRun):
    """The step failed before, and that is its outcome. `error` is the recorded text, without secrets.

    `again`: declared with `retry_failed=True`, the tool is tried again; a `once` tool never is under this step id.
    """

    code = "step_failed"

    def __init__(
        self,
        *,
        step: str,
        status: str | None = None,
        error: str | None = None,
        tool: str | None = None,
        again: bool = False,
    ) -> None:
        named = f"{tool} (step {step})" if tool else f"step {step!r}"
        cure = "the tool is tried again if it has retry_failed=True" if again else "another try needs another step id"
        super().__init__(f"{named} failed before ({status}): {error or 'no text recorded'}; that is recorded; {cure}")
        self.step = step
        self.status = status
        self.error = error
        self.tool = tool
        self.again = again


class PriorCredentialLive(StepNotRun):
    """An older credential may still work; start again after `retry_after` seconds."""

    code = "prior_credential_live"

    def __init__(
        self, message: str = "an older credential may still work", *, retry_after: float | None = None
    ) -> None:
        super().__init__(with_wait(message, retry_after))
        self.retry_after = retry_after


# -------------------------------------------------------------------------------------- this process may not act here


class RunNotHeld(StepgrantError):
    """This process may not act for the run."""

    code = "run_not_held"


class StaleEpoch(RunNotHeld):
    """Fenced: another process holds the run now, or the lease lapsed. Stop; what is recorded is safe."""

    code = "stale_epoch"


class LeaseHeld(RunNotHeld):
    """Another holder's lease is still running; it lapses in about `retry_after` seconds unless it is renewed."""

    code = "lease_held"

    def __init__(self, message: str = "another process holds the run", *, retry_after: float | None = None) -> None:
        super().__init__(with_wait(message, retry_after))
        self.retry_after = retry_after


class RunEnded(RunNotHeld):
    """The run is over; this is final. A new run needs a new key.

    `run_key`, `run` (its id) and `state` (`completed`, `failed`, `cancelled`): of a run that was to be entered, as far
    as its record can be read here. `recorded`: that record says what it ended with, which is `result` (None where it
    ended without one). A result belongs to one input: `other_input` says that the run had another one.
    """

    code = "run_ended"

    def __init__(
        self,
        message: str = "the run is over; that is final",
        *,
        run_key: str | None = None,
        run: str | None = None,
        state: str | None = None,
        result: object = None,
        recorded: bool = False,
        other_input: bool = False,
    ) -> None:
        super().__init__(message)
        self.run_key = run_key
        self.run = run
        self.state = state
        self.result: Any = result
        self.recorded = recorded
        self.other_input = other_input
        if run_key is not None:
            self.args = (self._told(message, run_key),)

    def _told(self, said: str, run_key: str) -> str:
        named = f"run {run_key!r}" if self.run is None else f"run {run_key!r} ({self.run})"
        over = f"{named} is over ({said})" if self.state is None else f"{named} is {self.state}, and that is final"
        other = ", and it had another input than this one" if self.other_input else ""
        look = f"`stepgrant run show {self.run or run_key}` tells what it did"
        look = "its result is the `result` of this error" if self.recorded else look
        return f"{over}{other}; nothing was done now. {look[0].upper()}{look[1:]}; a new run needs another key"


class Quarantined(RunNotHeld):
    """The kill switch holds this run, agent, workload or issuer."""

    code = "quarantined"


class SetAside(RunNotHeld):
    """A worker gave the run up after several tries; a person releases it (`stepgrant run release`)."""

    code = "set_aside"
