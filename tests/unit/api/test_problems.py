"""The one table of codes and statuses, and how a fault is rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heard import capture_logs
from stepgrant_broker.api import problems
from stepgrant_broker.domain import errors, refusals


def body(fault: errors.StepgrantFault) -> dict[str, Any]:
    return dict(json.loads(problems.problem(fault).body))


def header(fault: errors.StepgrantFault, name: bytes) -> bytes | None:
    return dict(problems.problem(fault).headers).get(name)


def test_the_table_is_that_of_the_protocol() -> None:
    by_status: dict[int, set[str]] = {}
    for code, status in problems.STATUSES.items():
        by_status.setdefault(status.http, set()).add(code)

    assert by_status == {
        400: {"invalid_request", "digest_mismatch"},
        401: {"invalid_token", "invalid_dpop_proof", "use_dpop_nonce"},
        403: {"policy_denied", "approval_required", "quarantined", "forbidden"},
        404: {"unknown_run", "unknown_step", "unknown_grant", "unknown_approval", "not_found"},
        405: {"method_not_allowed"},
        409: {
            "stale_epoch", "lease_held", "wrong_holder", "already_redeemed", "duplicate_request", "step_drift",
            "step_in_doubt", "suspected_duplicate", "run_ended", "set_aside", "prior_credential_live", "run_not_ended",
            "leases_not_confirmed",
        },
        410: {"grant_expired", "grant_revoked", "approval_expired"},
        413: {"too_large"},
        415: {"unsupported_media_type"},
        422: {"schema_violation"},
        429: {"budget_exhausted"},
        500: {"internal"},
        503: {"ledger_unavailable", "policy_unavailable", "issuer_unavailable", "conflict"},
    }  # fmt: skip


def test_detail_field_and_further_members_are_in_the_document() -> None:
    fault = errors.PolicyDenied("no", field="action", reasons=["too_much"], decision_id="dec_1")

    assert body(fault) == {
        "type": "urn:stepgrant:problem:policy_denied", "title": "Policy denies this", "status": 403,
        "code": "policy_denied", "detail": "no", "field": "action", "reasons": ["too_much"], "decision_id": "dec_1",
    }  # fmt: skip


def test_a_further_member_cannot_replace_one_of_the_document() -> None:
    fault = errors.StaleEpoch("old", status=200, code="fine", epoch=3)

    assert (body(fault)["status"], body(fault)["code"], body(fault)["epoch"]) == (409, "stale_epoch", 3)


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (errors.LeaseHeld("held", retry_after_ms=1), b"1"),
        (errors.LeaseHeld("held", retry_after_ms=2_001), b"3"),
        (errors.PriorCredentialLive("alive"), None),
        (errors.BudgetExhausted("enough"), b"1"),
        (errors.FateUnknown("lost"), b"1"),
        (errors.RetriesExhausted("others", retry_after_ms=0), b"1"),
        (errors.StaleEpoch("old"), None),
    ],
)
def test_what_may_be_tried_again_says_when(fault: errors.StepgrantFault, seconds: bytes | None) -> None:
    assert header(fault, b"retry-after") == seconds


def test_a_401_says_what_it_wants() -> None:
    assert header(errors.InvalidProof("bad"), b"www-authenticate") == (
        b'DPoP error="invalid_dpop_proof", algs="ES256 EdDSA"'
    )
    bearer = problems.problem(errors.Unauthenticated("who"), scheme="Bearer").headers
    assert bearer == [(b"www-authenticate", b'Bearer error="invalid_token"')]


def test_a_conflict_that_no_repetition_helps_is_no_503() -> None:
    assert problems.problem(errors.Conflict("answered already")).status == 409
    assert problems.problem(errors.RetriesExhausted("others were faster")).status == 503


def test_a_code_that_nobody_knows_is_a_bug_of_ours() -> None:
    class Strange(errors.StepgrantFault):
        code = "strange"

    assert problems.problem(Strange("?")).status == 500


def test_an_unexpected_exception_is_told_by_type_and_place_only() -> None:
    def breaks() -> None:
        raise ValueError("hunter2")

    with capture_logs() as events, pytest.raises(ValueError, match="hunter2") as caught:
        breaks()
    with capture_logs() as events:
        fault = problems.fault_of(caught.value, route="/v1/runs")

    assert (fault.code, problems.problem(fault).status) == ("internal", 500)
    assert "hunter2" not in repr(events) + json.dumps(body(fault))
    assert (events[0]["kind"], events[0]["route"]) == ("ValueError", "/v1/runs")
    assert "breaks" in str(events[0]["places"])


def test_a_refusal_of_the_store_that_got_through_is_a_retry() -> None:
    fault = problems.fault_of(refusals.VersionMoved("moved"), route="/v1/runs")

    assert (fault.code, problems.problem(fault).status) == ("conflict", 503)
