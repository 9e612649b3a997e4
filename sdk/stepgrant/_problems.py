"""From the broker's problem document (RFC 9457) to the SDK's error; one table holds every code of the protocol.

What arrives may come from something between us and the broker, so every member is taken only if it has its type, text
is cut, and a code that nobody knows becomes `BrokerError`, a status that says "not now" `BrokerUnavailable`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from stepgrant import _errors as e
from stepgrant import _verification_errors as v

_MAX_TEXT: Final = 500
_MAX_LIST: Final = 32
_RUN: Final = re.compile(r"run_[0-9A-Za-z]{1,64}")
ENDS: Final = frozenset({"completed", "failed", "cancelled"})
_UNAVAILABLE: Final = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class _Problem:
    status: int
    body: Mapping[str, object]
    retry_after: float | None

    def text(self, name: str) -> str | None:
        value = self.body.get(name)
        return value[:_MAX_TEXT] if isinstance(value, str) else None

    def integer(self, name: str) -> int | None:
        value = self.body.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.body.get(name)
        if not isinstance(value, (list, tuple)):
            return ()
        return tuple(item[:_MAX_TEXT] for item in value[:_MAX_LIST] if isinstance(item, str))

    @property
    def code(self) -> str:
        return self.text("code") or ("broker_unavailable" if self.status in _UNAVAILABLE else "broker_error")

    @property
    def message(self) -> str:
        return self.text("detail") or self.text("title") or self.code

    @property
    def wait(self) -> float | None:
        if self.retry_after is not None:
            return self.retry_after
        milliseconds = self.integer("retry_after_ms")
        return None if milliseconds is None else milliseconds / 1000


def _other(problem: _Problem) -> e.StepgrantError:
    kind = e.BrokerUnavailable if problem.status in _UNAVAILABLE else e.BrokerError
    return kind(
        code=problem.code,
        status=problem.status,
        title=problem.text("title") or "",
        detail=problem.text("detail") or "",
        retry_after=problem.wait,
    )


def _plain(kind: type[e.StepgrantError]) -> Callable[[_Problem], e.StepgrantError]:
    return lambda problem: kind(problem.message)


def _waiting(kind: type[e.LeaseHeld | e.PriorCredentialLive]) -> Callable[[_Problem], e.StepgrantError]:
    return lambda problem: kind(problem.message, retry_after=problem.wait)


def _ended(problem: _Problem) -> e.RunEnded:
    """A state that is no end, or an id that is none, is not taken: the one is told, the other asked for."""
    run, state = problem.text("run"), problem.text("state")
    named = run is not None and _RUN.fullmatch(run) is not None and state in ENDS
    return e.RunEnded(problem.message, run=run if named else None, state=state if named else None)


def _verification(kind: type[v.VerificationError]) -> Callable[[_Problem], e.StepgrantError]:
    return lambda problem: kind(problem.message, reason="broker_said_so", retry_after=problem.wait)


_BUILD: Final[Mapping[str, Callable[[_Problem], e.StepgrantError]]] = {
    "invalid_request": _other,
    "digest_mismatch": _verification(v.DigestMismatch),
    "invalid_token": _verification(v.InvalidToken),
    "invalid_dpop_proof": _verification(v.InvalidProof),
    "use_dpop_nonce": _verification(v.NonceRequired),
    "policy_denied": lambda p: e.Denied(reasons=p.texts("reasons"), decision_id=p.text("decision_id")),
    "approval_required": lambda p: e.ApprovalRequired(
        approval_id=p.text("approval_id"), answer_by=p.integer("answer_by")
    ),
    "quarantined": _plain(e.Quarantined),
    "forbidden": _other,
    "unknown_run": _other,
    "unknown_step": _other,
    "unknown_grant": _other,
    "unknown_approval": _other,
    "stale_epoch": _plain(e.StaleEpoch),
    "set_aside": _plain(e.SetAside),
    "lease_held": _waiting(e.LeaseHeld),
    "wrong_holder": _other,
    "already_redeemed": _verification(v.AlreadyRedeemed),
    "duplicate_request": _other,
    "step_drift": lambda p: e.StepDrift(p.message, differs=p.text("field")),
    "step_in_doubt": lambda p: e.InDoubt(
        step=p.text("step"), why=p.text("why") or p.message, options=p.texts("options"), attempt=p.integer("attempt")
    ),
    "suspected_duplicate": lambda p: e.SuspectedDuplicate(
        of=p.text("of"), options=p.texts("options"), step=p.text("step"), why=p.message
    ),
    "run_ended": _ended,
    "run_not_ended": _other,
    "leases_not_confirmed": _other,
    "prior_credential_live": _waiting(e.PriorCredentialLive),
    "grant_expired": _verification(v.GrantExpired),
    "grant_revoked": _verification(v.GrantRevoked),
    "approval_expired": _other,
    "too_large": _other,
    "unsupported_media_type": _other,
    "schema_violation": _other,
    "budget_exhausted": _other,
    "ledger_unavailable": _other,
    "policy_unavailable": _other,
    "issuer_unavailable": _other,
    "conflict": _other,
}


def from_problem(status: int, body: Mapping[str, object], *, retry_after: float | None = None) -> e.StepgrantError:
    """The error that a problem document stands for.

    Args:
        status: the HTTP status.
        body: the parsed document; `{}` where the answer was none.
        retry_after: the `Retry-After` header in seconds, where there was one; else the member `retry_after_ms` counts.
    """
    problem = _Problem(status, body, retry_after)
    return _BUILD.get(problem.code, _other)(problem)
