"""Cases that differ from a healthy run in one small thing: one of them for each condition of a rule."""

from __future__ import annotations

from checker.cases.allowed import answered, granted, prepared
from checker.cases.ends import ended_with_a_login
from checker.cases.marked import breaks, rows_changed
from checker.cases.outcomes import resumed
from checker.evidence import Evidence
from checker.ledgers import LOGIN, Ledger
from checker.lives import started


@breaks("I1")
def a_step_that_returned_and_is_not_finished() -> Ledger:
    ledger = started()
    ledger.begin("mail", "mail.send")
    ledger.heard.append({"told": "mail", "value": 1})
    return ledger


@breaks("I2")
def a_second_login_though_the_first_was_received() -> Ledger:
    ledger = started()
    jti = ledger.begin("index", "db.index", "idempotent", **LOGIN)
    ledger.lease(jti)
    ledger.revoke(jti)
    ledger.decide("index")
    ledger.grant("index", **LOGIN)
    return ledger


@breaks("I2")
def a_second_login_before_the_first_is_dead() -> Ledger:
    ledger = started()
    jti = ledger.begin("index", "db.index", "idempotent", **LOGIN)
    ledger.lease(jti)
    ledger.revoke(jti, confirmed=False)
    ledger.decide("index")
    ledger.grant("index", not_received=True, **LOGIN)
    return ledger


@breaks("I3")
def a_tool_with_a_credential_that_the_issuer_never_gave() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.issuer_failed(jti)
    return ledger


@breaks("I3")
def a_grant_of_a_step_that_no_entry_prepared() -> Evidence:
    ledger = started()
    ledger.begin("mail", "mail.send")
    ledger.entries = [one for one in ledger.entries if (one["type"], one["step"]) != ("step_prepared", "mail")]
    return ledger.evidence(tables=None, heard=[])


@breaks("I3")
def grants_of_a_run_that_has_no_entries() -> Evidence:
    ledger = started()
    row = next(iter(ledger.grants.values()))
    return rows_changed(ledger, grants=[*ledger.grants.values(), {**row, "run": "run_9"}])


@breaks("I4")
def a_doubt_that_its_row_calls_a_failure() -> Ledger:
    ledger = resumed()
    ledger.steps["charge"]["state"] = "failed"
    return ledger


@breaks("I4")
def a_spent_approval_that_its_row_calls_free() -> Ledger:
    ledger = granted(answered())
    ledger.approvals["apr_1"]["consumed_by"] = None
    return ledger


@breaks("I6")
def opened_without_a_reason() -> Ledger:
    ledger = Ledger()
    ledger.open(decision=ledger.decision(reasons=[]))
    return ledger


@breaks("I6")
def a_decision_without_a_revision() -> Evidence:
    ledger = prepared()
    ledger.decide("mail", policy_revision=None)
    ledger.grant("mail")
    tenantless = ledger.evidence(tables=None)
    return Evidence([one for one in tenantless.entries if one.chain], heard=tenantless.heard)


@breaks("I6")
def a_decision_without_a_name() -> Ledger:
    ledger = prepared()
    ledger.decide("mail", decision_id=None)
    ledger.grant("mail")
    return ledger


def waiting() -> Ledger:
    """People were asked whether the run may go on."""
    ledger = started()
    ledger.park()
    ledger.steps["~resume"] = {**ledger.steps["look"], "key": "~resume", "attempt": None}
    ledger.decide("~resume", "require_approval")
    ledger.ask("apr_1", "~resume")
    del ledger.steps["~resume"]
    return ledger


@breaks("I6")
def resumed_while_people_think() -> Ledger:
    ledger = waiting()
    ledger.resume(decision=ledger.decision("require_approval"), approval={"id": "apr_1"})
    ledger.approvals["apr_1"]["consumed_by"] = "epoch:2"
    return ledger


@breaks("I6")
def resumed_with_an_answer_that_was_used() -> Ledger:
    ledger = waiting()
    ledger.answer("apr_1")
    for key in ("k2", "k3"):
        ledger.resume(key, decision=ledger.decision("require_approval"), approval={"id": "apr_1"})
    ledger.approvals["apr_1"]["consumed_by"] = "epoch:2"
    return ledger


@breaks("I6")
def enough_said_yes_and_somebody_no() -> Ledger:
    ledger = answered(quorum=1)
    ledger.answer("apr_1", "Bea", "denied", "deny")
    return granted(ledger)


@breaks("I6")
def an_engine_that_says_nothing_of_a_decision() -> Ledger:
    ledger = started()
    ledger.books.append({"answered": "dec_other", "effect": "allow"})
    return ledger


@breaks("I8")
def two_effects_of_one_login() -> Ledger:
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.lease(jti)
    ledger.did(jti)
    ledger.did(jti)
    return ledger


@breaks("I8")
def a_look_without_a_grant() -> Ledger:
    ledger = resumed()
    ledger.now += 500
    ledger.prepare("charge~reconcile~1", "fee.charge.reconcile", "read")
    ledger.reconcile("charge", "not_done", via="charge~reconcile~1")
    return ledger


@breaks("I8")
def a_look_at_what_only_its_issuer_can_end() -> Ledger:
    """Nobody confirmed the login's death."""
    ledger = started()
    jti = ledger.begin("migrate", "db.migrate", **LOGIN)
    ledger.lease(jti)
    ledger.revoke(jti, confirmed=False)
    ledger.doubt("migrate")
    ledger.done("migrate~reconcile~1", "db.migrate.reconcile", "read")
    ledger.reconcile("migrate", "not_done", via="migrate~reconcile~1")
    return ledger


@breaks("I9")
def a_session_that_outlives_its_login() -> Ledger:
    ledger, jti = ended_with_a_login(confirmed=True)
    row = ledger.grants[jti]
    place = {name: row[name] for name in ("run", "step", "attempt", "epoch")}
    ledger.books.append({"login": "v-1", "alive": False, "sessions": 1, "at": ledger.now + 100, **place})
    return ledger
