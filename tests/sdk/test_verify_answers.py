"""The HTTP answer that each failed verification gets."""

import json

import pytest

from stepgrant import errors
from stepgrant.verify import refusal


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidToken("m", reason="r"), 401),
        (errors.InvalidProof("m", reason="r"), 401),
        (errors.NonceRequired("m", reason="r"), 401),
        (errors.InvalidRequest("m", reason="r"), 400),
        (errors.DigestMismatch("m", reason="r"), 400),
        (errors.GrantSuperseded("m", reason="r"), 409),
        (errors.AlreadyRedeemed("m", reason="r"), 409),
        (errors.GrantRevoked("m", reason="r"), 410),
        (errors.GrantExpired("m", reason="r"), 410),
        (errors.VerificationUnavailable("m", reason="r", retry_after=3.7), 503),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_verification_error_has_its_answer(error: errors.VerificationError, status: int) -> None:
    made = refusal(error)
    named = dict(made.headers)

    assert made.status == status
    assert json.loads(made.body) == {
        "type": "about:blank",
        "title": error.code,
        "status": status,
        "code": error.code,
        "detail": "m",
        "reason": "r",
    }
    assert named.get("retry-after") == ("3" if status == 503 else None)
    assert ("www-authenticate" in named) == (status == 401)
