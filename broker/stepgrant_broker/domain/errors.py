"""Every error that the domain and its ports may raise.

    StepgrantFault                  has a stable `code` of protocol.md §7
    ├── Invalid                     InvalidRequest  DigestMismatch  TooLarge  SchemaViolation
    ├── Unauthenticated             InvalidToken  InvalidProof  NonceRequired
    ├── Refused                     PolicyDenied  ApprovalNeeded  Quarantined  Forbidden
    ├── Unknown                     UnknownRun  UnknownStep  UnknownGrant  UnknownApproval  (also another tenant's)
    ├── Conflict                    StaleEpoch  LeaseHeld  WrongHolder  AlreadyRedeemed  DuplicateRequest
    │                               StepDrift  StepInDoubt  DuplicateSuspected  RunEnded  PriorCredentialLive
    ├── Gone                        GrantExpired  GrantRevoked  ApprovalExpired
    ├── BudgetExhausted
    └── Unavailable                 of store, policy, issuers and signer; RetriesExhausted

No HTTP here: one table in `api/problems.py` maps codes to statuses, one in `commands/` to exit codes.
"""

from __future__ import annotations

from typing import ClassVar


class StepgrantFault(Exception):
    """Base. `detail` says what is wrong and how to mend it; `field` names the offending input, if one."""

    code: ClassVar[str] = "internal"

    def __init__(
        self, detail: str, *, field: str | None = None, retry_after_ms: int | None = None, **more: object
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.more = more


class Invalid(StepgrantFault):
    """The request itself is wrong."""

    code = "invalid_request"


class InvalidRequest(Invalid):
    """A member is missing, malformed or contradictory."""


class DigestMismatch(Invalid):
    """A digest that was sent is not the digest of what was recorded."""

    code = "digest_mismatch"


class TooLarge(Invalid):
    """The body or a member is over its limit."""

    code = "too_large"


class SchemaViolation(Invalid):
    """Well-formed JSON of the wrong shape."""

    code = "schema_violation"


class UnsupportedMediaType(Invalid):
    """The body is not in the content type of the call."""

    code = "unsupported_media_type"


class Unauthenticated(StepgrantFault):
    """Who calls is not proven."""

    code = "invalid_token"


class InvalidToken(Unauthenticated):
    """The access token is missing, expired, foreign or not for this call."""


class InvalidProof(Unauthenticated):
    """The DPoP proof is missing, malformed, for another request, or was seen before."""

    code = "invalid_dpop_proof"


class NonceRequired(Unauthenticated):
    """The proof lacks a current nonce of this server."""

    code = "use_dpop_nonce"


class Refused(StepgrantFault):
    """Not allowed; nothing happened."""

    code = "forbidden"


class Forbidden(Refused):
    """The caller's role, audience or enrolment does not cover this call."""


class PolicyDenied(Refused):
    """Policy of now says no (on open, resume, start). `reasons` and `decision_id` are in `more`."""

    code = "policy_denied"


class ApprovalNeeded(Refused):
    """A person must answer first (on resume, start). `approval_id` is in `more`."""

    code = "approval_required"


class Quarantined(Refused):
    """The kill switch holds this run, agent, workload or issuer."""

    code = "quarantined"


class UnknownRun(StepgrantFault):
    """No such run for this caller."""

    code = "unknown_run"


class UnknownStep(StepgrantFault):
    """No such step in this run."""

    code = "unknown_step"


class UnknownGrant(StepgrantFault):
    """No such grant for this caller."""

    code = "unknown_grant"


class UnknownApproval(StepgrantFault):
    """No such approval for this caller."""

    code = "unknown_approval"


class NotFound(StepgrantFault):
    """Some other named thing does not exist."""

    code = "not_found"


class Conflict(StepgrantFault):
    """The state does not admit this call."""

    code = "conflict"


class StaleEpoch(Conflict):
    """The caller holds an older epoch, or its lease has lapsed: a zombie gets nothing."""

    code = "stale_epoch"


class LeaseHeld(Conflict):
    """Another holder's lease is still running."""

    code = "lease_held"


class WrongHolder(Conflict):
    """The key or workload is not that of the holder."""

    code = "wrong_holder"


class AlreadyRedeemed(Conflict):
    """The grant's one use is spent."""

    code = "already_redeemed"


class DuplicateRequest(Conflict):
    """The same idempotency key or run key came with another body."""

    code = "duplicate_request"


class StepDrift(Conflict):
    """A known step key came with another action, effect or idempotency key."""

    code = "step_drift"


class StepInDoubt(Conflict):
    """The step's outcome is not known; reconcile it first."""

    code = "step_in_doubt"


class DuplicateSuspected(Conflict):
    """The call may be a completed step once more; a person says so first (`of`)."""

    code = "suspected_duplicate"


class RunEnded(Conflict):
    """The run is over; this is final. Of one that is there: `run` (its id) and `state` say which, and how it ended."""

    code = "run_ended"


class SetAside(Conflict):
    """A worker gave the run up; a person must release it."""

    code = "set_aside"


class PriorCredentialLive(Conflict):
    """An effectful credential of before may still work; `retry_after_ms` says how long to wait."""

    code = "prior_credential_live"


class Gone(StepgrantFault):
    """It was there, and is not any more."""

    code = "grant_expired"


class GrantExpired(Gone):
    """The grant's time is over."""


class GrantRevoked(Gone):
    """The grant was revoked, or its holder is fenced."""

    code = "grant_revoked"


class ApprovalExpired(Gone):
    """The time to answer, or to use the answer, is over."""

    code = "approval_expired"


class BudgetExhausted(StepgrantFault):
    """The broker's own limits are reached."""

    code = "budget_exhausted"


class Unavailable(StepgrantFault):
    """Something the answer depends on did not work; nothing was released."""

    code = "conflict"


class StoreUnavailable(Unavailable):
    """The ledger cannot record now (full disk, locked, corrupt, gone)."""

    code = "ledger_unavailable"


class PayloadDamaged(StoreUnavailable):
    """What rests behind the commitment `c` does not open: somebody changed it, or put it there from elsewhere."""

    def __init__(self, c: str, field: str) -> None:
        super().__init__(f"the stored {field} behind {c} does not open; run `stepgrant ledger verify`")
        self.c, self.payload = c, field


class FateUnknown(StoreUnavailable):
    """A commit was sent and its reply lost: it is never run again, the caller repeats with its Idempotency-Key."""


class PolicyUnavailable(Unavailable):
    """The engine failed, timed out, or answered outside the contract."""

    code = "policy_unavailable"


class PolicySuperseded(PolicyUnavailable):
    """The policy was active before, and another one took its place: nobody said that it may come back."""


class IssuerUnavailable(Unavailable):
    """The issuer cannot be reached or is not configured."""

    code = "issuer_unavailable"


class IssuerRefused(IssuerUnavailable):
    """The issuer answered, but not with what was ordered."""


class SignerUnavailable(IssuerUnavailable):
    """The signing key cannot be used."""


class RetriesExhausted(Unavailable):
    """Others changed the run at every try."""
