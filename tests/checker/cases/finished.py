"""I7: a completed step never runs again."""

from __future__ import annotations

from checker.cases.marked import breaks
from checker.ledgers import Ledger
from checker.lives import started


@breaks("I7")
def a_grant_for_a_completed_step() -> Ledger:
    ledger = started()
    ledger.decide("look")
    ledger.steps["look"]["attempt"] = 2
    ledger.decide("look")
    ledger.grant("look")
    ledger.steps["look"]["state"] = "completed"
    ledger.heard.pop()
    return ledger


@breaks("I7")
def a_tool_that_runs_after_its_call_returned() -> Ledger:
    ledger = started()
    ledger.acts(next(jti for jti, row in ledger.grants.items() if row["step"] == "look"))
    return ledger


@breaks("I7")
def a_completed_step_that_is_prepared_again() -> Ledger:
    ledger = started()
    ledger.prepare("look", "stock.read", "read", attempt=2)
    ledger.steps["look"]["state"] = "completed"
    return ledger


@breaks("I7")
def a_second_outcome() -> Ledger:
    ledger = started()
    ledger.complete("look")
    return ledger


@breaks("I7")
def a_completed_step_that_fails() -> Ledger:
    ledger = started()
    ledger.fail("look", "failed")
    ledger.steps["look"]["state"] = "completed"
    return ledger


@breaks("I7")
def a_plan_that_is_made_again() -> Ledger:
    ledger = started()
    ledger.record("plan")
    return ledger


@breaks("I7")
def a_redemption_after_the_outcome() -> Ledger:
    ledger = started()
    jti = ledger.begin("again", "note.put", "idempotent")
    ledger.complete("again")
    ledger.redeem(jti)
    return ledger


@breaks("I7")
def a_replay_of_nothing() -> Ledger:
    ledger = started()
    ledger.prepare("mail", "mail.send")
    ledger.replay("mail")
    ledger.heard.pop()
    return ledger


@breaks("I7")
def another_result_than_before() -> Ledger:
    ledger = started()
    ledger.heard.append({"told": "pay", "value": "another"})
    return ledger


@breaks("I7")
def a_completed_call_under_another_id() -> Ledger:
    ledger = started()
    ledger.done("call-1", "stock.list", "read", args="all", id_source="call_id")
    ledger.resume()
    ledger.done("call-2", "stock.list", "read", args="all", id_source="call_id")
    return ledger
