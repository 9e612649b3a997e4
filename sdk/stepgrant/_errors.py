"""The error base, and what an agent's side raises. Public as `stepgrant.errors`, which draws the tree."""

from __future__ import annotations

from collections.abc import Sequence


def _revive(kind: type[StepgrantError], args: tuple[object, ...], state: dict[str, object]) -> StepgrantError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class StepgrantError(Exception):
    """Base of all. `code` is stable; match on it, never on the text."""

    code: str = "stepgrant_error"

    def __reduce__(self) -> tuple[object, ...]:
        """Without this, pickle would call the class with the message alone and lose every keyword field."""
        return _revive, (type(self), self.args, dict(self.__dict__))


def _with_wait(message: str, retry_after: float | None) -> str:
    return message if retry_after is None else f"{message}; try again in {retry_after:g} s"


class ConfigurationError(StepgrantError):
    """The set-up is wrong: an environment variable, a key file, a declaration. Nothing was tried."""

    code = "configuration_error"


class NotJson(StepgrantError):
    """An argument or a result is not JSON. `what` names it; `path` is the JSON Pointer of the place inside it."""

    code = "not_json"

    def __init__(self, *, what: str, path: str, why: str) -> None:
        super().__init__(f"{what} is not JSON at {path or 'the top'}: {why}")
        self.what = what
        self.path = path
        self.why = why


class OrdinalUnderConcurrency(StepgrantError):
    """Calls that run side by side have no order that survives a crash: give each a `step_id`."""

    code = "ordinal_under_concurrency"


class CredentialMisuse(StepgrantError):
    """A credential was used outside what it is for: another origin, after its end, outside its tool call."""

    code = "credential_misuse"


class KeyLost(StepgrantError):
    """A holder's key was used in a forked process. It never leaves the process that made it: open the run there."""

    code = "key_lost"


class NotExecuted(StepgrantError):
    """Raised by a tool that knows for sure: the effect did not happen and cannot happen any more."""

    code = "not_executed"


class ResultWithheld(StepgrantError):
    """The step is completed and will not be done again, but its result was not stored, so it cannot be given back."""

    code = "result_withheld"
    _why = "was not stored when it completed"

    def __init__(self, *, step: str) -> None:
        super().__init__(f"the result of step {step!r} {self._why}; the step is completed")
        self.step = step


class SecretInResult(ResultWithheld):
    """The tool's result contains a live secret. The step is completed; the result is neither stored nor returned."""

    code = "secret_in_result"
    _why = "contains a live secret and is withheld"


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
    """A known step key came with another action, effect or idempotency key. Nothing happened."""

    code = "step_drift"


class StepFailed(StepNotRun):
    """The step failed before, and that is its outcome. `error` is the recorded text, without secrets."""

    code = "step_failed"

    def __init__(self, *, step: str, status: str | None = None, error: str | None = None) -> None:
        super().__init__(f"step {step!r} failed before ({status}): {error or 'no text recorded'}")
        self.step = step
        self.status = status
        self.error = error


class PriorCredentialLive(StepNotRun):
    """An older credential may still work; start again after `retry_after` seconds."""

    code = "prior_credential_live"

    def __init__(
        self, message: str = "an older credential may still work", *, retry_after: float | None = None
    ) -> None:
        super().__init__(_with_wait(message, retry_after))
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
        super().__init__(_with_wait(message, retry_after))
        self.retry_after = retry_after


class RunEnded(RunNotHeld):
    """The run is over; this is final. A new run needs a new key."""

    code = "run_ended"


class Quarantined(RunNotHeld):
    """The kill switch holds this run, agent, workload or issuer."""

    code = "quarantined"


class SetAside(RunNotHeld):
    """A worker gave the run up after several tries; a person releases it (`stepgrant run release`)."""

    code = "set_aside"


# --------------------------------------------------------------------------------------------------------- the broker


class BrokerError(StepgrantError):
    """The broker refused; nothing was released. `code`, `title`, `detail` and `status` are as it answered."""

    code = "broker_error"

    def __init__(
        self, *, code: str, status: int, title: str = "", detail: str = "", retry_after: float | None = None
    ) -> None:
        said = ": ".join(part for part in (title, detail) if part)
        super().__init__(_with_wait(f"{code} (HTTP {status}){': ' if said else ''}{said}", retry_after))
        self.code = code
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after = retry_after


class AuthenticationFailed(BrokerError):
    """The broker did not accept the workload's identity; `code` is OAuth's (invalid_client, invalid_request, ...)."""


class BrokerUnavailable(BrokerError):
    """The broker, or something it depends on, cannot be reached. Nothing was released, the tool did not run."""

    def __init__(
        self,
        *,
        code: str = "broker_unavailable",
        status: int = 503,
        title: str = "",
        detail: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code=code, status=status, title=title, detail=detail, retry_after=retry_after)
