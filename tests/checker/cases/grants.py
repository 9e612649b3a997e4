"""I2 and I3: at most one live grant for an attempt, and no credential without its entry."""

from __future__ import annotations

from checker.cases.marked import breaks
from checker.evidence import Evidence
from checker.ledgers import LOGIN, TTL_MS, Ledger
from checker.lives import started


@breaks("I2")
def two_live_grants_of_one_attempt() -> Ledger:
    ledger = started()
    ledger.begin("mail", "mail.send")
    ledger.decide("mail")
    ledger.grant("mail")
    return ledger


@breaks("I2")
def a_grant_beside_one_that_was_perhaps_used() -> Ledger:
    """Of a read, whose successor is another attempt."""
    ledger = started()
    ledger.revoke(ledger.begin("list", "stock.list", "read"))
    ledger.decide("list")
    ledger.grant("list")
    return ledger


@breaks("I2")
def one_name_for_two_grants() -> Evidence:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.revoke(jti, unused=True)
    ledger.decide("mail")
    ledger.grant("mail", jti=jti)
    return ledger.evidence(tables=None)


@breaks("I2")
def a_second_redemption() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.redeem(jti)
    ledger.redeem(jti)
    return ledger


@breaks("I2")
def a_second_lease() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.lease(jti)
    ledger.lease(jti)
    return ledger


@breaks("I2")
def two_uses_of_one_grant() -> Ledger:
    ledger = started()
    jti = ledger.begin("again", "note.put", "idempotent")
    ledger.redeem(jti)
    ledger.did(jti)
    ledger.did(jti)
    return ledger


@breaks("I3")
def a_credential_that_the_ledger_does_not_know() -> Ledger:
    ledger = started()
    ledger.prepare("mail", "mail.send")
    ledger.heard.append({"acts": "mail", "attempt": 1, "epoch": 1})
    return ledger


@breaks("I3")
def a_login_that_left_before_its_lease_was_recorded() -> Ledger:
    ledger = started()
    ledger.acts(ledger.begin("migrate", "db.migrate", **LOGIN))
    return ledger


@breaks("I3")
def a_login_that_acted_before_its_lease_was_recorded() -> Ledger:
    ledger = started()
    ledger.did(ledger.begin("migrate", "db.migrate", **LOGIN))
    return ledger


@breaks("I3")
def an_effect_under_an_unknown_grant() -> Ledger:
    ledger = started()
    ledger.did(next(iter(ledger.grants)))
    ledger.books[-1] = {**ledger.books[-1], "jti": "grn_forged"}
    return ledger


@breaks("I3")
def an_effect_under_the_grant_of_another_step() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.redeem(jti)
    ledger.did(jti, did="card.charge")
    return ledger


@breaks("I3")
def an_effect_without_redeeming() -> Ledger:
    ledger = started()
    ledger.did(ledger.begin("mail", "mail.send"))
    return ledger


@breaks("I3")
def an_effect_long_after_its_grant_ran_out() -> Ledger:
    ledger = started()
    jti = ledger.begin("list", "stock.list", "read")
    ledger.did(jti, at=ledger.now + TTL_MS + 11_000)
    return ledger


@breaks("I3")
def a_login_that_acts_after_its_death() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.lease(jti)
    ledger.complete("migrate")
    ledger.revoke(jti)
    ledger.did(jti, at=ledger.now + 500)
    return ledger


@breaks("I3")
def a_redemption_of_an_unknown_grant() -> Ledger:
    ledger = started()
    ledger.books.append({"spent": "grn_forged", "run": ledger.run, "at": ledger.now, "act_before": ledger.now})
    return ledger


@breaks("I3")
def a_redemption_of_what_was_taken_back() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.revoke(jti)
    ledger.redeem(jti)
    return ledger


@breaks("I3")
def a_redemption_of_what_ran_out() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.now += TTL_MS + 11_000
    ledger.redeem(jti, act_before=ledger.grants[jti]["exp"])
    return ledger


@breaks("I3")
def an_endless_redemption() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.redeem(jti, act_before=ledger.now + 30_000)
    return ledger


@breaks("I3")
def a_lease_of_what_was_taken_back() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.revoke(jti, unused=True)
    ledger.lease(jti)
    return ledger


@breaks("I3")
def a_lease_of_no_grant() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.on(jti, "lease_recorded", grant={"jti": "grn_forged", "exp": 1})
    return ledger


@breaks("I3")
def a_row_that_no_entry_issued() -> Ledger:
    ledger = started()
    ledger.grants["grn_forged"] = {**next(iter(ledger.grants.values())), "jti": "grn_forged"}
    return ledger


@breaks("I3")
def a_row_that_lives_longer_than_its_entry() -> Ledger:
    ledger = started()
    next(iter(ledger.grants.values()))["exp"] += 1
    return ledger


@breaks("I3")
def a_grant_for_a_step_that_was_never_recorded() -> Ledger:
    ledger = started()
    ledger.begin("mail", "mail.send")
    ledger.entries = [one for one in ledger.entries if (one["type"], one["step"]) != ("step_prepared", "mail")]
    del ledger.steps["mail"]
    return ledger


@breaks("I3")
def an_outcome_without_a_grant() -> Ledger:
    ledger = started()
    ledger.prepare("mail", "mail.send")
    ledger.complete("mail")
    return ledger


@breaks("I3")
def more_logins_than_grants() -> Ledger:
    ledger = started()
    ledger.books += [{"login": f"v-{number}", "alive": True, "sessions": 0, "at": ledger.now} for number in range(2)]
    ledger.lease(ledger.begin("migrate", "db.migrate", **LOGIN))
    return ledger
