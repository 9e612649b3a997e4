"""Receipts of a step or a grant: what they hold and what they refuse, proof files, and signed nonsense."""

from __future__ import annotations

from itertools import count

import pytest

from receipts import ORIGIN, START, digest, jcs
from stepgrant import receipt, tlog
from stepgrant.canonical import b64u_decode
from stories import REVISION, Run, erasure, eventful, issued, rechain, rewritten

RUN = eventful()
TOLD = receipt.verify(RUN.logged(), RUN.book.jwks)


# ----------------------------------------------------------------------------------------------------- parts, proofs


def positions(run: Run, *types: str) -> list[int]:
    """Where entries of the step `publish` of these types stand."""
    told = receipt.verify(run.receipt(), run.book.jwks)
    return [event.seq for event in told.events if event.type in types and event.step == "publish"]


BEHIND = ("step_prepared", "decision", "approval_requested", "approval_decided")


def with_approval() -> Run:
    """The eventful run, in which the third grant spends the approval, as the broker writes it."""
    run = eventful()
    for at, entry in enumerate(run.book.entries):
        if b'"grn_3"' in entry and b'"grant_issued"' in entry:
            run.book.entries[at] = entry.replace(b'"attempt":1,', b'"approval":{"id":"apr_1"},"attempt":1,')
    rechain(run)
    return run


def test_a_grant_rests_on_its_decision_and_its_approval() -> None:
    run = with_approval()
    told = rewritten(run, scope=("grant", "grn_3"), extra=positions(run, *BEHIND))
    assert [event.type for event in told.events] == [
        "step_prepared", "decision", "approval_requested", "approval_decided", "decision", "grant_issued",
        "grant_redeemed", "grant_revoked",
    ]  # fmt: skip
    (grant,) = told.grants
    assert grant.decision is not None
    assert (grant.decision.reasons, grant.approval) == (("tool_asks", "approved:apr_1"), "apr_1")
    assert told.approvals[0].used_by == "grn_3"
    assert told.facts.revisions == (REVISION,)


@pytest.mark.parametrize("kind", ["step_completed", "grant_issued of another", "decision of another", "other approval"])
def test_a_grant_rests_on_nothing_else(kind: str) -> None:
    run = with_approval()
    told = receipt.verify(run.receipt(), run.book.jwks)
    if kind == "other approval":
        run = eventful()  # where the grant names no approval
        extra = positions(run, "approval_decided")
    elif kind.endswith("of another"):
        extra = [
            next(
                event.seq
                for event in told.events
                if event.type == kind.removesuffix(" of another") and event.step == "read"
            )
        ]
    else:
        extra = positions(run, kind)
    value = run.logged(scope=("grant", "grn_3"), extra=extra)
    with pytest.raises(receipt.ChainBroken, match="entry_foreign"):
        receipt.verify(value, run.book.jwks)


def test_what_comes_after_a_grant_is_not_behind_it() -> None:
    run = issued()
    action = run.action("card.charge", "inv/9", "once", {"amount": 1})
    run.decided(40, "charge", action, "deny", "too_late")
    value = run.logged(scope=("grant", "grn_1"), extra=[3, 4])
    with pytest.raises(receipt.ChainBroken, match="entry_foreign"):
        receipt.verify(value, run.book.jwks)


def test_a_grant_does_not_rest_on_the_decision_of_another_attempt() -> None:
    run = Run()
    run.opened()
    action = run.action("card.charge", "inv/9", "once", {"amount": 1})
    run.add(10, "decision", step="charge", attempt=2, action=action, decision=run.decision("allow", "listed"), body={})
    run.decided(11, "charge", action, "allow", "listed")
    run.issued(12, "charge", action, "grn_1")
    assert len(rewritten(run, scope=("grant", "grn_1"), extra=[2]).decisions) == 1
    with pytest.raises(receipt.ChainBroken, match="entry_foreign at entry 0"):
        receipt.verify(run.logged(scope=("grant", "grn_1"), extra=[1, 2]), run.book.jwks)


def test_a_part_has_an_entry_of_its_own_and_may_say_that_it_was_erased() -> None:
    run = eventful()
    erasure(run)
    last = len(run.book.entries) - 1
    part = rewritten(run, scope=("step", "charge"), extra=[last], change=lambda v: v.update(disclosures=[]))
    assert part.erased is not None
    value = run.logged(scope=("step", "nothing"), extra=[last])
    with pytest.raises(receipt.ChainBroken, match="entry_foreign"):
        receipt.verify(value, run.book.jwks)


def test_time_does_not_go_back_in_a_part() -> None:
    run = issued()
    run.add(5, "step_suspended", step="charge", attempt=1)
    with pytest.raises(receipt.ChainBroken, match="time_goes_back"):
        receipt.verify(run.logged(scope=("step", "charge")), run.book.jwks)


def test_each_entry_has_a_proof_file() -> None:
    for position, event in enumerate(TOLD.events):
        tlog.read_proof(TOLD.tlog_proof(position), ORIGIN).verify(b64u_decode(event.hash))
    for position in (-1, len(TOLD.events)):
        with pytest.raises(receipt.NotInReceipt, match="no_such_entry"):
            TOLD.tlog_proof(position)
    with pytest.raises(receipt.LogProofInvalid, match="not_logged"):
        receipt.verify(RUN.receipt(), RUN.book.jwks).tlog_proof(0)


def test_the_digest_is_that_of_the_file() -> None:
    value = RUN.logged()
    assert receipt.verify(value, RUN.book.jwks).digest == digest(jcs(value))


# ------------------------------------------------------------------------------------------------ earlier receipts


WHOLE = with_approval()
BASE = frozenset(positions(WHOLE, *BEHIND))
SCOPES = (("run", "run_01"), ("step", "publish"), ("grant", "grn_3"))


def of(scope: tuple[str, str], run: Run = WHOLE, *, without: int | None = None) -> receipt.Verified:
    """The receipt of this; `without`: the seq of an entry that it leaves out."""
    value = run.logged(scope=scope, extra=BASE)
    for at, entry in enumerate(value["entries"]):
        if f'"seq":{without},'.encode() in b64u_decode(entry):
            del value["entries"][at], value["log"]["proofs"][at]
            held = b"".join(map(b64u_decode, value["entries"]))
            value["disclosures"] = [one for one in value["disclosures"] if one["c"].encode() in held]
            break
    return receipt.verify(value, run.book.jwks)


@pytest.mark.parametrize("scope", SCOPES, ids=str)
@pytest.mark.parametrize("before", SCOPES, ids=str)
def test_each_entry_is_compared_also_where_no_chain_ties_them(scope: tuple[str, str], before: tuple[str, str]) -> None:
    """The broker's own keys signed both. In a part what comes after the changed answer is as it was, to the last."""
    run = with_approval()
    at = next(seq for seq in BASE if b'"approval_decided"' in run.book.entries[seq])
    run.book.entries[at] = run.book.entries[at].replace(b'"operator":"opr_1"', b'"operator":"opr_2"')
    if scope[0] == "run":
        rechain(run)
    later = of(scope, run)
    assert (later.head_hash == of(scope).head_hash) is (scope[0] != "run")
    with pytest.raises(receipt.ChainBroken) as caught:
        later.continues(of(before))
    assert caught.value.reason == "forked"
    assert later.events[caught.value.position or 0].seq == at
    assert of(scope).continues(of(before)) > 0


def test_what_a_receipt_is_not_about_is_not_compared() -> None:
    whole, step, grant = map(of, SCOPES)
    assert step.continues(whole) == whole.continues(step) == len(step.events)
    assert grant.continues(step) == step.continues(grant) == len(grant.events) < len(step.events)
    with pytest.raises(receipt.NotInReceipt) as caught:
        rewritten(RUN, scope=("step", "read")).continues(rewritten(RUN, scope=("step", "charge")))
    assert caught.value.reason == "nothing_to_compare"


@pytest.mark.parametrize("scope", SCOPES[1:], ids=str)
def test_a_part_without_what_an_earlier_one_has_of_it_is_refused(scope: tuple[str, str]) -> None:
    """What is not shown cannot differ."""
    some = of(scope, without=min(BASE))
    assert of(scope).continues(some) == len(some.events)
    for before in SCOPES:
        with pytest.raises(receipt.ChainBroken) as caught:
            some.continues(of(before))
        assert caught.value.reason == "shorter_than_earlier"


# --------------------------------------------------------------------------------------------- what makes no sense


ODD: tuple[object, ...] = (None, 7, -1, 2**53 - 1, 1.5, True, "", "\u202e", [], [7], {}, {"x": 1})


@pytest.mark.parametrize("odd", ODD, ids=count())
def test_signed_nonsense_is_not_there_and_breaks_nothing(odd: object) -> None:
    """Whoever has the broker's key can sign anything: what is not of its type is as if it were not said."""
    run = issued()
    grant = {"jti": "grn_1", "issuer": odd, "exp": odd}
    run.add(20, "grant_redeemed", step="charge", attempt=1, grant=grant, body={"server": odd, "act_before": odd})
    run.add(21, "grant_revoked", step="charge", attempt=1, grant=grant, body={"unused": odd, "confirmed": odd})
    run.add(22, "approval_requested", step="charge", attempt=1, approval={"id": "apr_1"},
            body={"groups": odd, "quorum": odd, "answer_by": odd, "why_again": odd})  # fmt: skip
    run.add(23, "approval_decided", step="charge", approval={"id": "apr_1"}, by=("person", "x"),
            body={"verdict": odd, "settled": odd, "operator": odd})  # fmt: skip
    run.add(24, "decision", step="charge", attempt=1, body={"phase": odd, "engine": odd},
            decision={"effect": odd, "reasons": odd, "policy_revision": odd, "decision_id": odd})  # fmt: skip
    run.add(25, "run_erased", by=("person", None), body={"cause": odd})
    run.add(
        26, "run_resumed", body={"workload": odd, "attestation": odd}, agent={"name": odd, "jkt": odd, "version": odd}
    )
    told = rewritten(run)
    assert told.grant("grn_1").redemptions[0].at == START + 20
    assert told.approvals[0].asked_at == START + 22
    assert len(told.decisions) == 3
    assert told.erased is not None
    assert told.erased.at == START + 25
    assert receipt.as_html(told).startswith("<!DOCTYPE html>")
