"""From a fault to an HTTP answer: the one table of codes and statuses (`protocol.md` §7, RFC 9457).

Rules:
* Every fault that a use case or port may raise has its status here; nothing else in `api/` names a status of an error.
* An exception that nobody expected answers `internal` and shows nothing of itself: its text may hold a secret. The log
  gets its type and the places it came through, never its message.
* What may be tried again says when: `Retry-After` on every 503 and 429, and where a conflict ends by itself.
"""

from __future__ import annotations

import traceback
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from stepgrant_broker.api.messages import Answer, Headers, json_answer
from stepgrant_broker.domain.errors import Conflict, RetriesExhausted, StepgrantFault
from stepgrant_broker.domain.refusals import StoreRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBLEM_JSON: Final = b"application/problem+json"
TYPE_PREFIX: Final = "urn:stepgrant:problem:"
ALGORITHMS: Final = "ES256 EdDSA"
_DEFAULT_WAIT_MS: Final = 1000
_FRAMES_KEPT: Final = 12

_log = structlog.get_logger(__name__)


class Status(NamedTuple):
    """How one code is answered. `waits`: a `Retry-After` always belongs to it."""

    http: int
    title: str
    waits: bool = False


STATUSES: Final[Mapping[str, Status]] = MappingProxyType(
    {
        "invalid_request": Status(400, "The request is not well formed"),
        "digest_mismatch": Status(400, "The digest does not belong to what it stands for"),
        "invalid_token": Status(401, "The caller is not proven"),
        "invalid_dpop_proof": Status(401, "The proof of possession is not valid"),
        "use_dpop_nonce": Status(401, "The proof needs a current nonce"),
        "policy_denied": Status(403, "Policy denies this"),
        "approval_required": Status(403, "A person must answer first"),
        "quarantined": Status(403, "Under quarantine"),
        "forbidden": Status(403, "Not allowed for this caller"),
        "unknown_run": Status(404, "No such run"),
        "unknown_step": Status(404, "No such step"),
        "unknown_grant": Status(404, "No such grant"),
        "unknown_approval": Status(404, "No such approval"),
        "not_found": Status(404, "Not found"),
        "method_not_allowed": Status(405, "This path has other methods"),
        "stale_epoch": Status(409, "A newer epoch holds the run, or the lease has lapsed"),
        "set_aside": Status(409, "The run was set aside; a person must release it"),
        "lease_held": Status(409, "Another process holds the run"),
        "wrong_holder": Status(409, "Not the holder of the run"),
        "already_redeemed": Status(409, "The grant's use is spent"),
        "duplicate_request": Status(409, "The same key came with another body"),
        "step_drift": Status(409, "A known step came with another action"),
        "step_in_doubt": Status(409, "The step may already have happened"),
        "suspected_duplicate": Status(409, "The call may be a completed step once more"),
        "run_ended": Status(409, "The run is over"),
        "run_not_ended": Status(409, "The run goes on"),
        "leases_not_confirmed": Status(409, "Credentials outside are not confirmed dead"),
        "prior_credential_live": Status(409, "An older credential may still work"),
        "grant_expired": Status(410, "The grant has expired"),
        "grant_revoked": Status(410, "The grant was revoked"),
        "approval_expired": Status(410, "The approval's time is over"),
        "too_large": Status(413, "Too large"),
        "unsupported_media_type": Status(415, "Another content type is needed"),
        "schema_violation": Status(422, "The request has the wrong shape"),
        "budget_exhausted": Status(429, "A limit of the broker is reached", waits=True),
        "internal": Status(500, "Something failed inside the broker"),
        "ledger_unavailable": Status(503, "The ledger cannot record now", waits=True),
        "policy_unavailable": Status(503, "Policy cannot decide now", waits=True),
        "issuer_unavailable": Status(503, "The issuer cannot issue now", waits=True),
        "conflict": Status(503, "Others were faster; nothing was released", waits=True),
    }
)
ALREADY: Final = Status(409, "The state does not admit this call")
"""A plain `Conflict` of the domain: repeating the call cannot help, so it is no 503."""

RESERVED: Final = frozenset({"type", "title", "status", "code", "detail", "field", "retry_after_ms"})


def status_of(fault: StepgrantFault) -> Status:
    """The status of a fault. A code that the table does not know is a bug of ours and answered as such."""
    if fault.code == Conflict.code and isinstance(fault, Conflict):
        return ALREADY
    return STATUSES.get(fault.code, STATUSES["internal"])


def problem(fault: StepgrantFault, *, scheme: str = "DPoP") -> Answer:
    """The problem document of a fault, with the headers that belong to its code. `scheme` is what a 401 asks for."""
    status = status_of(fault)
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + fault.code,
        "title": status.title,
        "status": status.http,
        "code": fault.code,
        "detail": fault.detail,
    }
    if fault.field is not None:
        body["field"] = fault.field
    wait = fault.retry_after_ms if fault.retry_after_ms is not None or not status.waits else _DEFAULT_WAIT_MS
    headers: Headers = []
    if wait is not None:
        body["retry_after_ms"] = wait
        headers.append((b"retry-after", str(whole_seconds(wait)).encode()))
    if status.http == STATUSES["invalid_token"].http:
        headers.append((b"www-authenticate", challenge(fault.code, scheme)))
    body.update((name, value) for name, value in fault.more.items() if name not in RESERVED)
    return json_answer(body, status=status.http, headers=headers, media_type=PROBLEM_JSON)


def challenge(code: str, scheme: str) -> bytes:
    """The `WWW-Authenticate` of a 401 (RFC 9449 §7.1, RFC 6750 §3)."""
    algorithms = f', algs="{ALGORITHMS}"' if scheme == "DPoP" else ""
    return f'{scheme} error="{code}"{algorithms}'.encode()


def whole_seconds(milliseconds: int) -> int:
    """`Retry-After` counts whole seconds; too early would be refused again, so it is rounded up."""
    return max(1, -(-milliseconds // 1000))


def fault_of(error: Exception, *, route: str) -> StepgrantFault:
    """The fault that stands for an exception which no use case should let through; it is logged."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_KEPT:]
    places = [f"{frame.filename.rpartition('stepgrant_broker/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    _log.error("unexpected_exception", route=route, kind=type(error).__name__, places=places)
    if isinstance(error, StoreRefusal):
        return RetriesExhausted("the ledger refused the change; try again")
    return StepgrantFault("the broker failed; its log says where")
