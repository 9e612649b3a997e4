"""I1: acknowledged means durable."""

from __future__ import annotations

from checker.cases.marked import breaks
from checker.ledgers import Ledger
from checker.lives import started


@breaks("I1")
def an_outcome_that_was_acknowledged() -> Ledger:
    ledger = started()
    ledger.heard.append({"told": "mail", "value": 1})
    return ledger


@breaks("I1")
def an_epoch_that_was_acknowledged() -> Ledger:
    ledger = started()
    ledger.heard.append({"run": ledger.run, "epoch": 2})
    return ledger


@breaks("I1")
def an_end_that_was_acknowledged() -> Ledger:
    ledger = started()
    ledger.heard.append({"ended": True})
    return ledger


@breaks("I1")
def a_run_that_was_acknowledged() -> Ledger:
    ledger = started()
    ledger.heard.append({"run": "run_2", "epoch": 1})
    return ledger


@breaks("I1")
def a_redemption_that_was_acknowledged() -> Ledger:
    ledger = started()
    jti = ledger.begin("mail", "mail.send")
    ledger.books.append({"spent": jti, "run": ledger.run, "at": ledger.now, "act_before": ledger.now + 1})
    return ledger
