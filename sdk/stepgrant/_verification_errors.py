"""What verification raises: of requests at a resource server, and of receipts. Public as `stepgrant.errors`."""

from __future__ import annotations

from stepgrant._errors import StepgrantError


class VerificationError(StepgrantError):
    """A resource server must not act on this request. `reason` is a stable, finer code for logs and tests."""

    code = "verification_failed"

    def __init__(self, message: str, *, reason: str, retry_after: float | None = None) -> None:
        super().__init__(f"{self.code} ({reason}): {message}")
        self.message = message
        self.reason = reason
        self.retry_after = retry_after


class InvalidToken(VerificationError):
    """The token is missing, malformed, forged, foreign, expired or not a grant for this server."""

    code = "invalid_token"


class InvalidProof(VerificationError):
    """The DPoP proof is missing, malformed, forged, for another request or token, stale or seen before."""

    code = "invalid_dpop_proof"


class NonceRequired(VerificationError):
    """The DPoP proof carries no current nonce of this server."""

    code = "use_dpop_nonce"


class DigestMismatch(VerificationError):
    """What is about to be done is not the action that the token is for."""

    code = "digest_mismatch"


class GrantSuperseded(VerificationError):
    """A newer epoch of this run was seen, so the sender is fenced: a zombie."""

    code = "stale_epoch"


class GrantRevoked(VerificationError):
    """The grant was revoked."""

    code = "grant_revoked"


class GrantExpired(VerificationError):
    """The grant's time, or the time to act after redeeming it, is over."""

    code = "grant_expired"


class AlreadyRedeemed(VerificationError):
    """The grant's uses are spent."""

    code = "already_redeemed"


class InvalidRequest(VerificationError):
    """The request cannot be read as an action."""

    code = "invalid_request"


class VerificationUnavailable(VerificationError):
    """Keys or the broker are out of reach, or a memory is full: refused, because nothing may pass unchecked."""

    code = "verification_unavailable"


class ReceiptError(StepgrantError):
    """A receipt does not prove what it claims. `reason` is a stable code, `position` the entry's place in its chain."""

    code = "receipt_invalid"

    def __init__(self, message: str, *, reason: str, position: int | None = None) -> None:
        super().__init__(f"{reason}: {message}" if position is None else f"{reason} at entry {position}: {message}")
        self.reason = reason
        self.position = position
