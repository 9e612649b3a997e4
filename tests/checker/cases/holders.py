"""I5: nothing to a fenced holder."""

from __future__ import annotations

from checker.cases.marked import breaks
from checker.ledgers import LOGIN, STATIC, TTL_MS, WINDOW_MS, Ledger
from checker.lives import started


def taken_over(*, wait_ms: int = WINDOW_MS) -> Ledger:
    """Epoch 2 holds the run, and all that epoch 1 held is dead."""
    ledger = started()
    ledger.now += wait_ms
    ledger.resume()
    return ledger


@breaks("I5")
def a_grant_under_an_old_epoch() -> Ledger:
    ledger = taken_over()
    ledger.prepare("mail", "mail.send")
    ledger.epoch = 1
    ledger.decide("mail")
    ledger.grant("mail")
    return ledger


@breaks("I5")
def a_grant_for_an_old_key() -> Ledger:
    ledger = taken_over()
    ledger.begin("mail", "mail.send", jkt="k1")
    return ledger


@breaks("I5")
def a_step_under_an_old_epoch() -> Ledger:
    ledger = taken_over()
    ledger.epoch = 1
    ledger.prepare("mail", "mail.send")
    return ledger


@breaks("I5")
def a_grant_while_nobody_holds_the_run() -> Ledger:
    """The lease had lapsed, and the run was parked."""
    ledger = started()
    ledger.prepare("mail", "mail.send")
    ledger.park()
    ledger.decide("mail")
    ledger.grant("mail")
    return ledger


@breaks("I5")
def an_outcome_while_nobody_holds_the_run() -> Ledger:
    ledger = started()
    ledger.revoke(ledger.begin("list", "stock.list", "read"))
    ledger.park()
    ledger.complete("list")
    return ledger


@breaks("I5")
def an_outcome_of_an_attempt_of_an_old_epoch() -> Ledger:
    ledger = started()
    ledger.revoke(ledger.begin("list", "stock.list", "read"))
    ledger.resume()
    ledger.complete("list")
    return ledger


@breaks("I5")
def a_redemption_of_an_old_grant() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.revoke(jti, unused=True)
    ledger.resume()
    ledger.redeem(jti)
    return ledger


@breaks("I5")
def a_lease_of_an_old_grant() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.now += TTL_MS
    ledger.resume()
    ledger.lease(jti)
    return ledger


@breaks("I5")
def an_epoch_that_was_left_out() -> Ledger:
    ledger = started()
    ledger.resume(epoch=3)
    return ledger


@breaks("I5")
def a_successor_with_the_key_of_its_zombie() -> Ledger:
    ledger = started()
    ledger.resume("k1")
    return ledger


@breaks("I5")
def a_resume_that_takes_nothing_back() -> Ledger:
    ledger = started()
    ledger.begin("mail", "mail.send")
    ledger.resume()
    return ledger


@breaks("I5")
def a_resume_in_quarantine() -> Ledger:
    ledger = started()
    ledger.park("run_quarantined")
    ledger.resume()
    return ledger


@breaks("I5")
def a_start_before_an_old_redemption_is_over() -> Ledger:
    ledger = taken_over(wait_ms=1000)
    ledger.begin("mail", "mail.send")
    return ledger


@breaks("I5")
def a_start_before_an_old_login_is_confirmed_dead() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", "idempotent", **LOGIN)
    ledger.lease(jti)
    ledger.revoke(jti, confirmed=False)
    ledger.now += TTL_MS
    ledger.resume()
    ledger.begin("mail", "mail.send")
    return ledger


@breaks("I5")
def a_start_before_an_old_static_key_has_run_out() -> Ledger:
    ledger = started()
    ledger.revoke(ledger.begin("wire", "wire.send", "idempotent", **STATIC))
    ledger.now += WINDOW_MS
    ledger.resume()
    ledger.begin("mail", "mail.send")
    return ledger


@breaks("I5")
def a_zombie_that_was_obeyed() -> Ledger:
    ledger = taken_over()
    ledger.heard.append({"accepted": "heartbeat", "epoch": 1, "asked": ledger.now + 1})
    return ledger
