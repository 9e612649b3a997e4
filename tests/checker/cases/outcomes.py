"""I8: a once effect happens at most once; a lost outcome is in doubt, not repeated."""

from __future__ import annotations

from checker.cases.marked import breaks
from checker.evidence import Evidence
from checker.ledgers import LOGIN, WINDOW_MS, Ledger
from checker.lives import started


def resumed(*, doubt: bool = True) -> Ledger:
    """Epoch 2 holds a run whose step `charge` was redeemed and never heard of again."""
    ledger = started()
    jti = ledger.begin("charge", "fee.charge", settle_ms=500)
    ledger.redeem(jti)
    ledger.now += WINDOW_MS
    ledger.revoke(jti)
    if doubt:
        ledger.doubt("charge")
    ledger.resume()
    return ledger


@breaks("I8")
def a_second_attempt_of_what_may_have_happened() -> Ledger:
    ledger = resumed()
    ledger.begin("charge", "fee.charge", attempt=2, settle_ms=500)
    ledger.steps["charge"]["state"] = "in_doubt"
    return ledger


@breaks("I8")
def a_second_attempt_of_a_login_that_may_have_acted() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.lease(jti)
    ledger.revoke(jti)
    ledger.begin("migrate", "db.migrate", attempt=2, **LOGIN)
    return ledger


@breaks("I8")
def a_second_attempt_of_what_failed() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.redeem(jti)
    ledger.fail("mail", "failed")
    ledger.revoke(jti)
    ledger.begin("mail", "mail.send", attempt=2)
    return ledger


@breaks("I8")
def a_lost_outcome_without_doubt() -> Ledger:
    return resumed(doubt=False)


@breaks("I8")
def an_end_without_doubt() -> Ledger:
    ledger = started()
    jti = ledger.begin("charge", "fee.charge")
    ledger.redeem(jti)
    ledger.revoke(jti)
    ledger.end()
    return ledger


@breaks("I8")
def a_doubt_that_is_called_a_failure() -> Ledger:
    ledger = started()
    jti = ledger.begin("charge", "fee.charge")
    ledger.redeem(jti)
    ledger.fail("charge", "unknown")
    ledger.revoke(jti)
    return ledger


@breaks("I8")
def used_and_called_unused() -> Ledger:
    ledger = started()
    jti = ledger.begin("again", "note.put", "idempotent")
    ledger.redeem(jti)
    ledger.revoke(jti, unused=True)
    return ledger


@breaks("I8")
def a_verdict_without_a_doubt() -> Ledger:
    ledger = started()
    ledger.prepare("charge", "fee.charge")
    ledger.reconcile("charge", "not_done", operator="Ann")
    return ledger


@breaks("I8")
def a_look_before_the_dust_settled() -> Ledger:
    ledger = resumed()
    ledger.now += 400
    ledger.done("charge~reconcile~1", "fee.charge.reconcile", "read")
    ledger.reconcile("charge", "not_done", via="charge~reconcile~1")
    return ledger


@breaks("I8")
def a_verdict_of_nobody() -> Ledger:
    ledger = resumed()
    ledger.now += 500
    ledger.reconcile("charge", "not_done")
    return ledger


@breaks("I8")
def it_happened_twice() -> Ledger:
    """The look came late enough and was wrong: the target's fault, but it is seen."""
    ledger = started()
    first = ledger.begin("charge", "fee.charge")
    ledger.redeem(first)
    ledger.did(first)
    ledger.now += WINDOW_MS
    ledger.revoke(first)
    ledger.doubt("charge")
    ledger.reconcile("charge", "not_done", operator="Ann")
    ledger.done("charge", "fee.charge", attempt=2)
    return ledger


@breaks("I8")
def it_happened_and_is_denied() -> Ledger:
    ledger = started()
    jti = ledger.begin("charge", "fee.charge")
    ledger.redeem(jti)
    ledger.did(jti)
    ledger.fail("charge", "not_executed")
    ledger.revoke(jti)
    return ledger


@breaks("I8")
def it_happened_though_no_tool_saw_the_login() -> Ledger:
    ledger = started()
    lost = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.lease(lost)
    ledger.did(lost)
    ledger.revoke(lost)
    ledger.decide("migrate")
    ledger.grant("migrate", not_received=True, **LOGIN)
    return ledger


@breaks("I8")
def another_key_for_the_same_effect() -> Ledger:
    ledger = started()
    jti = ledger.begin("again", "note.put", "idempotent")
    ledger.redeem(jti)
    ledger.revoke(jti)
    ledger.begin("again", "note.put", "idempotent", attempt=2, idempotency_key="another")
    return ledger


@breaks("I8")
def another_key_before_it_began() -> Ledger:
    ledger = started()
    ledger.prepare("again", "note.put", "idempotent")
    ledger.prepare("again", "note.put", "idempotent", idempotency_key="another")
    return ledger


@breaks("I8")
def another_key_at_the_target() -> Ledger:
    ledger = started()
    jti = ledger.begin("again", "note.put", "idempotent")
    ledger.redeem(jti)
    ledger.did(jti)
    ledger.now += WINDOW_MS
    ledger.revoke(jti)
    ledger.decide("again")
    second = ledger.begin("again", "note.put", "idempotent", attempt=2)
    ledger.redeem(second)
    ledger.did(second, key="another")
    return ledger


@breaks("I8")
def a_new_call_of_a_tool_in_doubt() -> Ledger:
    ledger = resumed()
    ledger.begin("charge-2", "fee.charge")
    return ledger


@breaks("I8")
def adopted_within_one_epoch() -> Ledger:
    ledger = started()
    jti = ledger.begin("call-1", "fee.charge")
    ledger.redeem(jti)
    ledger.revoke(jti)
    ledger.doubt("call-1")
    ledger.adopt("call-2", "call-1")
    return ledger


@breaks("I8")
def adopted_twice() -> Ledger:
    ledger = resumed()
    ledger.adopt("call-2", "charge")
    ledger.adopt("call-3", "charge")
    return ledger


@breaks("I8")
def adopted_from_another_action() -> Ledger:
    ledger = resumed()
    ledger.adopt("call-2", "charge")
    ledger.entries[-1]["action"] = {**ledger.entries[-1]["action"], "tool": "another"}
    return ledger


@breaks("I8")
def adopted_from_nothing() -> Ledger:
    ledger = resumed()
    ledger.adopt("call-2", "charge")
    ledger.entries[-1]["body"] = {"from": "nothing"}
    return ledger


@breaks("I8")
def a_step_of_its_own_that_is_adopted() -> Evidence:
    ledger = resumed()
    ledger.begin("call-2", "note.put", "idempotent")
    ledger.steps["call-2"] = {**ledger.steps["charge"], "key": "call-2"}
    ledger.adopt("call-2", "charge")
    return ledger.evidence(tables=None, heard=[])
