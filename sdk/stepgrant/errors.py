"""Every error that the SDK raises for its caller, in one tree.

    StepgrantError
    ├── ConfigurationError            configuration_error        the set-up is wrong; nothing was tried
    ├── NotJson                       not_json                   an argument or result is not JSON
    ├── OrdinalUnderConcurrency       ordinal_under_concurrency  concurrent calls need a step id
    ├── CredentialMisuse              credential_misuse          a credential used outside what it is for
    ├── KeyLost                       key_lost                   a holder's key used in a forked process
    ├── NotExecuted                   not_executed               raised BY a tool: it did not happen
    ├── ResultWithheld                result_withheld            the step is completed, its result was not stored
    │   └── SecretInResult            secret_in_result           because it contains a live secret
    ├── StepNotRun                                               the tool did not run
    │   ├── Denied                    policy_denied
    │   ├── ApprovalRequired          approval_required
    │   ├── InDoubt                   step_in_doubt
    │   ├── SuspectedDuplicate        suspected_duplicate
    │   ├── StepFailed                step_failed                it failed before; this is the recorded failure
    │   ├── StepDrift                 step_drift
    │   └── PriorCredentialLive       prior_credential_live
    ├── RunNotHeld                                               this process may not act for the run
    │   ├── StaleEpoch                stale_epoch                fenced: another holds the run, or the lease lapsed
    │   ├── LeaseHeld                 lease_held
    │   ├── RunEnded                  run_ended
    │   ├── Quarantined               quarantined
    │   └── SetAside                  set_aside                  given up by a worker; a person must release it
    ├── BrokerError                   (the broker's own code)    any other refusal; nothing was released
    │   ├── AuthenticationFailed      (OAuth's code)             the token exchange was refused
    │   └── BrokerUnavailable         broker_unavailable, or the 503's own code
    ├── VerificationError                                        a resource server must not act on this request
    │   ├── InvalidToken              invalid_token
    │   ├── InvalidProof              invalid_dpop_proof
    │   ├── NonceRequired             use_dpop_nonce
    │   ├── DigestMismatch            digest_mismatch            the token is for another action
    │   ├── GrantSuperseded           stale_epoch                a newer epoch of the run was seen
    │   ├── GrantRevoked              grant_revoked
    │   ├── GrantExpired              grant_expired
    │   ├── AlreadyRedeemed           already_redeemed
    │   ├── InvalidRequest            invalid_request            the request cannot be read
    │   └── VerificationUnavailable   verification_unavailable   keys or broker out of reach: ask again later
    └── ReceiptError                  receipt_invalid

Rules: each class has a stable `code`; messages say what is wrong and how to mend it, and carry no secret, argument
or result; all survive pickle and copy with every field, also in subclasses that frameworks need.
Times to wait are seconds.
"""

from __future__ import annotations

from stepgrant._errors import (
    ApprovalRequired,
    AuthenticationFailed,
    BrokerError,
    BrokerUnavailable,
    ConfigurationError,
    CredentialMisuse,
    Denied,
    InDoubt,
    KeyLost,
    LeaseHeld,
    NotExecuted,
    NotJson,
    OrdinalUnderConcurrency,
    PriorCredentialLive,
    Quarantined,
    ResultWithheld,
    RunEnded,
    RunNotHeld,
    SecretInResult,
    SetAside,
    StaleEpoch,
    StepDrift,
    StepFailed,
    StepgrantError,
    StepNotRun,
    SuspectedDuplicate,
)
from stepgrant._problems import from_problem
from stepgrant._verification_errors import (
    AlreadyRedeemed,
    DigestMismatch,
    GrantExpired,
    GrantRevoked,
    GrantSuperseded,
    InvalidProof,
    InvalidRequest,
    InvalidToken,
    NonceRequired,
    ReceiptError,
    VerificationError,
    VerificationUnavailable,
)

__all__ = [
    "AlreadyRedeemed",
    "ApprovalRequired",
    "AuthenticationFailed",
    "BrokerError",
    "BrokerUnavailable",
    "ConfigurationError",
    "CredentialMisuse",
    "Denied",
    "DigestMismatch",
    "GrantExpired",
    "GrantRevoked",
    "GrantSuperseded",
    "InDoubt",
    "InvalidProof",
    "InvalidRequest",
    "InvalidToken",
    "KeyLost",
    "LeaseHeld",
    "NonceRequired",
    "NotExecuted",
    "NotJson",
    "OrdinalUnderConcurrency",
    "PriorCredentialLive",
    "Quarantined",
    "ReceiptError",
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
    "VerificationError",
    "VerificationUnavailable",
    "from_problem",
]
