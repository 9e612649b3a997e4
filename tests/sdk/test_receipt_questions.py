"""What an auditor asks a verified receipt: who, decided how, approved by whom, with which credential, and its end."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from auditing import ANSWERED_S, answered_in
from receipts import ORIGIN, START, WITNESSES, digest, jcs, vkey
from stepgrant import receipt
from stepgrant._keys import verifying_key
from stories import APPROVER, HOLDER, REVISION, Run, erasure, eventful, issued, rechain, rewritten

RUN = eventful()
TOLD = receipt.verify(RUN.logged(), RUN.book.jwks)
FILES = {"stepgrant/main.rego": "package stepgrant\n"}
TEXT = digest(jcs([{"digest": digest(FILES[path].encode()), "path": path} for path in sorted(FILES)]))


def test_an_auditor_asks_a_receipt(tmp_path: Path) -> None:
    """The questions that a receipt is for, from one file and public keys, in under a second."""
    run = eventful()
    for at, entry in enumerate(run.book.entries):
        run.book.entries[at] = entry.replace(REVISION.encode(), f"3:{TEXT}".encode())
    rechain(run)
    value = run.logged(
        cosigned=("alice",), change=lambda v: v.update(policies=[{"revision": f"3:{TEXT}", "files": FILES}])
    )
    file, keys = jcs(value), jcs(run.book.jwks)
    trust = f"log {vkey(ORIGIN, 1, run.book.key)}\nwitness alice {vkey('alice', 4, WITNESSES['alice'])}\nquorum alice"

    told = receipt.verify(file, keys, log_policy=trust)  # does it hold, and who says so
    step = told.step(3)  # what was step 3
    credential = step.grants[-1]
    over = credential.revoked_at, credential.end
    people = [one.subject for approval in step.approvals for one in approval.approved_by]

    assert (told.kid, told.logged and list(told.logged.cosigned)) == ("head-key", ["alice"])
    assert (step.key, step.tool, step.args) == ("charge", "card.charge", {"invoice": "inv_9", "amount": 100})
    # The holder of epoch 1 charged; the one of epoch 2 looked whether it had happened.
    assert [(one.kind, one.subject, one.agent, one.attested, one.epoch) for one in step.who] == [
        ("workload", HOLDER, "rotator", "enrolled_key", 1),
        ("workload", HOLDER, "rotator", "enrolled_key", 2),
    ]
    assert step.decisions[-1].policy == FILES
    assert told.step("publish").decisions[0].policy == FILES
    assert people == []
    assert [one.subject for one in told.step("publish").approvals[0].approved_by] == [APPROVER]
    assert (credential.jti, credential.issuer, credential.audience) == ("grn_2", "jwt", "https://shop.example")
    assert over == (START + 3_400, "confirmed")
    assert told.missing == ()

    assert answered_in(tmp_path, file, keys, trust, 3) < ANSWERED_S


def test_steps_are_found_by_key_and_by_position() -> None:
    assert [step.key for step in TOLD.steps] == ["plan", "read", "charge", "publish"]
    assert [step.position for step in TOLD.steps] == [1, 2, 3, 4]
    assert TOLD.step("charge") == TOLD.step(3)
    assert TOLD.step(1).status == "recorded"
    for name in ("nothing", 5):
        with pytest.raises(receipt.NotInReceipt) as caught:
            TOLD.step(name)
        assert caught.value.reason == "no_such_step"


def test_grants_are_found_by_their_id() -> None:
    grant = TOLD.grant("grn_3")
    assert (grant.step, grant.redemptions[0].server, grant.cause) == ("publish", "wkl_shop", "completed")
    assert grant.decision is TOLD.step("publish").decisions[-1]
    with pytest.raises(receipt.NotInReceipt, match="no_such_grant"):
        TOLD.grant("grn_9")


def test_an_approval_says_who_when_and_what_it_came_to() -> None:
    (approval,) = TOLD.approvals
    assert (approval.id, approval.step, approval.groups, approval.quorum) == ("apr_1", "publish", ("editors",), 1)
    assert (approval.asked_at, approval.settled) == (START + 5_300, "approved")
    (answer,) = approval.answers
    assert (answer.at, answer.verdict, answer.note) == (START + 65_320, "approve", "looks right")
    assert (answer.who.kind, answer.who.subject, answer.who.id) == ("person", APPROVER, "opr_1")


def test_who_approves_or_is_told_an_old_result_does_not_act() -> None:
    assert [(one.kind, one.epoch) for one in TOLD.step("publish").who] == [("workload", 2), ("workload", 3)]
    assert [(one.kind, one.epoch) for one in TOLD.step("read").who] == [("workload", 1)]  # replayed in epoch 2


def test_a_quorum_has_several_answers_and_a_denial_settles_it() -> None:
    run = Run()
    run.opened()
    named = {"id": "apr_1"}
    asked = {"groups": ["a"], "quorum": 2, "answer_by": START + 9, "why_again": "answer_expired"}
    run.add(10, "approval_requested", step="s", attempt=1, approval=named, body=asked)
    yes = {"verdict": "approve", "settled": "pending", "operator": "opr_1"}
    run.add(11, "approval_decided", step="s", by=("person", "Ada"), approval=named, body=yes)
    waiting = rewritten(run).approvals[0]
    assert (waiting.settled, len(waiting.approved_by), waiting.why_again) == (None, 1, "answer_expired")
    no = {"verdict": "deny", "settled": "denied", "operator": "opr_2"}
    run.add(12, "approval_decided", step="s", by=("person", "Bob"), approval=named, body=no)
    told = rewritten(run).approvals[0]
    assert (told.settled, [one.subject for one in told.approved_by], len(told.answers)) == ("denied", ["Ada"], 2)


@pytest.mark.parametrize(
    ("body", "redeemed", "over", "end"),
    [
        ({}, False, None, "open"),
        ({}, True, {"unused": False, "confirmed": True}, "confirmed"),
        ({}, True, {"unused": False, "confirmed": False}, "unconfirmed"),
        ({"revocation": "expiry"}, False, {"unused": True, "confirmed": True}, "refused"),
        ({"revocation": "expiry", "redeem": "optional"}, False, {"unused": False, "confirmed": True}, "expires"),
        ({"revocation": "none", "redeem": "optional"}, False, None, "cannot_be_revoked"),
        ({"revocation": "none"}, False, {"unused": False, "confirmed": True}, "cannot_be_revoked"),
    ],
    ids=count(),
)
def test_a_credentials_end_is_what_its_issuer_can_do(
    *, body: dict[str, Any], redeemed: bool, over: dict[str, Any] | None, end: str
) -> None:
    run = issued(**body)
    if redeemed:
        run.redeemed(20, "charge", "grn_1")
    if over is not None:
        grant = {"jti": "grn_1", "issuer": "jwt", "exp": START}
        run.add(30, "grant_revoked", step="charge", attempt=1, grant=grant, cause="completed", body=over)
    told = rewritten(run).grant("grn_1")
    assert (told.end, len(told.redemptions), told.revoked_at) == (end, redeemed, START + 30 if over else None)
    assert told.unused is bool(over and over["unused"])
    assert (told.confirmed_at is None) is (end != "confirmed")


def test_the_issuers_confirmation_may_come_after_the_end_of_the_run() -> None:
    run = issued()
    grant = {"jti": "grn_1", "issuer": "jwt", "exp": START}
    run.add(30, "grant_revoked", step="charge", attempt=1, grant=grant, cause="run_ended",
            body={"unused": False, "confirmed": False})  # fmt: skip
    run.ended(30, "cancelled")
    run.over(500, "charge", "grn_1", "run_ended")
    told = rewritten(run, change=lambda v: v.update(complete=True))
    assert (told.complete, told.grants[0].confirmed_at, told.grants[0].revoked_at) == (True, START + 500, START + 30)


def test_a_failed_grant_and_a_recorded_lease() -> None:
    run = issued()
    named = {"jti": "grn_1", "issuer": "vault-db", "exp": START + 99}
    run.add(20, "lease_recorded", step="charge", attempt=1, grant=named, body={"lease_c": None})
    assert rewritten(run).grants[0].expires_at == START + 99
    run.add(30, "grant_failed", step="charge", attempt=1, grant=named, body={"detail": "no such role"})
    told = rewritten(run).grants[0]
    assert (told.end, told.failed) == ("failed", "no such role")


def test_each_holder_is_known_by_its_key() -> None:
    """An entry's epoch is its step's, which may be older than the holder who writes it."""
    run = Run()
    run.opened()
    run.epoch = 2
    agent = {"name": "rotator", "jkt": "jkt-2", "version": "7"}
    body = {
        "workload": "wkl_2",
        "kind": "resume",
        "attestation": {"method": "oidc"},
        "lease_lapsed": True,
        "parked_ms": 1,
    }
    run.add(20, "run_resumed", agent=agent, decision=run.decision("allow", "ok"), body=body)
    run.add(30, "step_reconciled", step="s", attempt=1, epoch=1, agent=agent, outcome={"status": "done"},
            body={"verdict": "done"})  # fmt: skip
    (actor,) = rewritten(run).step("s").who
    assert (actor.epoch, actor.id, actor.attested, actor.version) == (2, "wkl_2", "oidc", "7")


def test_a_key_that_was_revoked_later_is_told() -> None:
    run = eventful()
    kid = verifying_key(run.book.key.jwk).jkt
    times = {"revoked_at": START + 10**9, "revoked_size": 1000}
    keys: dict[str, Any] = {
        "v": 1,
        "kind": "stepgrant.keys",
        "keys": [{"purpose": "heads", "kid": kid, "jwk": run.book.key.jwk, **times}],
    }
    trust = f"log {vkey(ORIGIN, 1, run.book.key)}\nwitness alice {vkey('alice', 4, WITNESSES['alice'])}\nquorum alice"
    value = run.logged(change=lambda v: v["head"]["signature"].update(kid=kid), cosigned=("alice",))
    told = receipt.verify(value, keys, log_policy=trust)
    assert told.key_revoked_at == START + 10**9
    assert "That key was revoked at 2027-01-26T21:46:40Z; witnesses that you trust saw" in receipt.as_html(told)
    assert "revoked at 2027-01-26" not in receipt.as_html(TOLD)


# ------------------------------------------------------------------------------------------------- what is not in it


def test_nothing_is_missing_of_a_whole_run_but_its_policy_text() -> None:
    assert [gap.code for gap in TOLD.missing] == ["no_policy_text"]
    assert REVISION in TOLD.missing[0].text


def test_what_is_missing_is_named() -> None:
    run = issued()
    assert "not_ended" in {gap.code for gap in rewritten(run).missing}
    part = rewritten(RUN, scope=("step", "charge"))
    assert [gap.code for gap in part.missing] == ["part_only", "no_policy_text"]
    assert "not_logged" in {gap.code for gap in receipt.verify(RUN.receipt(), RUN.book.jwks).missing}
    hidden = rewritten(RUN, change=lambda v: v.update(disclosures=[]))
    assert "hidden" in {gap.code for gap in hidden.missing}
    assert hidden.step("charge").who[0].subject is None
    run.add(40, "step_levitated", step="charge", attempt=1)
    assert "step_levitated" in next(gap.text for gap in rewritten(run).missing if gap.code == "unknown_types")


def test_an_erased_run_stays_complete_and_says_so() -> None:
    run = eventful()
    erasure(run)
    told = rewritten(run, change=lambda v: v.update(disclosures=[], complete=True))
    assert told.complete
    assert told.erased is not None
    assert (told.erased.at, told.erased.cause, told.erased.who.kind) == (START + 90_000, "operator", "person")
    codes = [gap.code for gap in told.missing]
    assert ("erased" in codes, "hidden" in codes) == (True, False)
    # Who approved is still known by the name that the broker gave: it is no committed value.
    assert told.approvals[0].approved_by[0].id == "opr_1"


def test_other_entries_after_the_end_make_it_incomplete() -> None:
    run = eventful()
    run.recorded(80_000, "late", 1)
    erasure(run)
    value = run.logged(change=lambda v: v.update(complete=True))
    with pytest.raises(receipt.ReceiptUnreadable, match="wrong_complete"):
        receipt.verify(value, run.book.jwks)
