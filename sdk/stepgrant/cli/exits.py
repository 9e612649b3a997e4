"""Exit codes: the one table from stable error codes to what a shell script sees.

    0  ok
    1  refused, or a check failed: policy said no, a receipt does not hold, a digest is not the one that was shown
    2  usage: wrong arguments, wrong set-up, a file in the way, a port that is taken, a part that is not installed
    3  not found: a run, a step, …, or a file or folder that you named
    4  who you are: no token, an unknown one, or a role that does not cover this
    5  the broker, or something it depends on, is not available; nothing was changed, try again
    6  conflict: the state does not admit this (ended, answered already, expired, held by another)
    70 a defect of ours
    130 interrupted

`stepgrant dev -- command` ends with the command's own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from stepgrant.errors import BrokerError, BrokerUnavailable, StepgrantError


class ExitCode(IntEnum):
    """What each number means; the module's docstring is its documentation."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    AUTH = 4
    UNAVAILABLE = 5
    CONFLICT = 6
    DEFECT = 70
    INTERRUPTED = 130


_BY_CODE: Final[Mapping[str, ExitCode]] = {
    "digest_mismatch": ExitCode.REFUSED,
    "policy_denied": ExitCode.REFUSED,
    "approval_required": ExitCode.REFUSED,
    "quarantined": ExitCode.REFUSED,
    "receipt_invalid": ExitCode.REFUSED,
    "check_failed": ExitCode.REFUSED,
    "aborted": ExitCode.REFUSED,
    "export_refused": ExitCode.REFUSED,
    "answer_too_large": ExitCode.REFUSED,
    "unexpected_answer": ExitCode.REFUSED,
    "configuration_error": ExitCode.USAGE,
    "usage": ExitCode.USAGE,
    "not_installed": ExitCode.USAGE,
    "invalid_request": ExitCode.USAGE,
    "os_error": ExitCode.USAGE,
    "schema_violation": ExitCode.USAGE,
    "too_large": ExitCode.USAGE,
    "unsupported_media_type": ExitCode.USAGE,
    "not_found": ExitCode.NOT_FOUND,
    "unknown_run": ExitCode.NOT_FOUND,
    "unknown_step": ExitCode.NOT_FOUND,
    "unknown_grant": ExitCode.NOT_FOUND,
    "unknown_approval": ExitCode.NOT_FOUND,
    "invalid_token": ExitCode.AUTH,
    "invalid_dpop_proof": ExitCode.AUTH,
    "use_dpop_nonce": ExitCode.AUTH,
    "forbidden": ExitCode.AUTH,
    "no_token": ExitCode.AUTH,
    "stale_epoch": ExitCode.CONFLICT,
    "lease_held": ExitCode.CONFLICT,
    "set_aside": ExitCode.CONFLICT,
    "wrong_holder": ExitCode.CONFLICT,
    "already_redeemed": ExitCode.CONFLICT,
    "duplicate_request": ExitCode.CONFLICT,
    "step_drift": ExitCode.CONFLICT,
    "step_in_doubt": ExitCode.CONFLICT,
    "run_ended": ExitCode.CONFLICT,
    "run_not_ended": ExitCode.CONFLICT,
    "leases_not_confirmed": ExitCode.CONFLICT,
    "prior_credential_live": ExitCode.CONFLICT,
    "suspected_duplicate": ExitCode.CONFLICT,
    "grant_expired": ExitCode.CONFLICT,
    "grant_revoked": ExitCode.CONFLICT,
    "approval_expired": ExitCode.CONFLICT,
    "conflict": ExitCode.CONFLICT,
    "store_rolled_back": ExitCode.CONFLICT,
    "store_not_behind": ExitCode.CONFLICT,
    "budget_exhausted": ExitCode.UNAVAILABLE,
    "ledger_unavailable": ExitCode.UNAVAILABLE,
    "policy_unavailable": ExitCode.UNAVAILABLE,
    "issuer_unavailable": ExitCode.UNAVAILABLE,
    "broker_unavailable": ExitCode.UNAVAILABLE,
    "verification_unavailable": ExitCode.UNAVAILABLE,
}
_BY_STATUS: Final[Mapping[int, ExitCode]] = {
    401: ExitCode.AUTH,
    403: ExitCode.AUTH,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    410: ExitCode.CONFLICT,
    429: ExitCode.UNAVAILABLE,
}


class CommandError(StepgrantError):
    """A command cannot go on. `code` is one of the table above; the message is one line that says how to mend it."""

    def __init__(self, message: str, *, code: str = "usage") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def exit_for_code(code: str) -> ExitCode:
    """The exit code of a stable error code; one that nobody knows is a refusal."""
    return _BY_CODE.get(code, ExitCode.REFUSED)


def exit_for(error: StepgrantError) -> ExitCode:
    """The exit code of an error of the SDK or of a command."""
    if isinstance(error, BrokerUnavailable):  # also its `conflict`: retries used up is "not now", no state of yours
        return ExitCode.UNAVAILABLE
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    if isinstance(error, BrokerError):
        return _BY_STATUS.get(error.status, ExitCode.REFUSED)
    return ExitCode.REFUSED
