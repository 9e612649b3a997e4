"""I4: one chain per run, no fork, and the tables say what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from checker.cases.marked import breaks, rows_changed
from checker.evidence import Evidence, Record
from checker.ledgers import START, Ledger
from checker.lives import in_doubt, started
from stepgrant.canonical import dumps, loads


def forged(change: Callable[[list[Record]], list[Record]]) -> Evidence:
    """A ledger whose rows were changed afterwards."""
    evidence = started().evidence(tables=None)
    tenant, run = evidence.entries[:1], list(evidence.entries[1:])
    return replace(evidence, entries=[*tenant, *change(run)], books=[], heard=[])


def rewritten(record: Record, **members: object) -> Record:
    fields = loads(record.data)
    assert isinstance(fields, dict)
    data = dumps({**fields, **members})  # type: ignore[dict-item]
    return replace(record, data=data, hash=hashlib.sha256(data).digest())


@breaks("I4")
def an_entry_is_gone() -> Evidence:
    return forged(lambda run: [*run[:3], *run[4:]])


@breaks("I4")
def an_entry_was_rewritten() -> Evidence:
    return forged(lambda run: [*run[:3], rewritten(run[3], mode="x"), *run[4:]])


@breaks("I4")
def two_entries_have_changed_places() -> Evidence:
    return forged(lambda run: [*run[:3], replace(run[3], seq=4), replace(run[4], seq=3), *run[5:]])


@breaks("I4")
def a_fork() -> Evidence:
    return forged(lambda run: [*run, rewritten(run[-1], mode="x")])


@breaks("I4")
def a_hash_that_is_not_of_its_bytes() -> Evidence:
    return forged(lambda run: [*run[:-1], replace(run[-1], hash=bytes(32))])


@breaks("I4")
def bytes_that_are_no_entry() -> Evidence:
    return forged(lambda run: [*run[:-1], replace(run[-1], data=b"{}")])


@breaks("I4")
def an_entry_of_another_run() -> Evidence:
    return forged(lambda run: [*run[:-1], rewritten(run[-1], run="run_2")])


@breaks("I4")
def time_falls() -> Evidence:
    return forged(lambda run: [*run[:-1], rewritten(run[-1], ts=START)])


@breaks("I4")
def two_runs_of_one_name() -> Evidence:
    one, two = started().evidence(tables=None), started("run_2").evidence(tables=None)
    return replace(one, entries=[*one.entries, *two.entries[1:]], books=[])


@breaks("I4")
def a_run_that_is_opened_twice() -> Ledger:
    ledger = started()
    ledger.add("run_opened", body={"run_key": "job"}, decision=ledger.decision())
    ledger.state.update(epoch=1)
    return ledger


@breaks("I4")
def a_run_that_goes_on_after_its_end() -> Ledger:
    ledger = started()
    ledger.end()
    ledger.prepare("mail", "mail.send")
    return ledger


@breaks("I4")
def a_head_that_is_not_the_chains() -> Evidence:
    ledger = started()
    return rows_changed(ledger, runs=[{**ledger.row(), "seq": 3}])


@breaks("I4")
def a_run_without_its_row() -> Evidence:
    return rows_changed(started(), runs=[])


@breaks("I4")
def rows_without_a_chain() -> Evidence:
    ledger = started()
    return rows_changed(ledger, runs=[ledger.row(), {"id": "run_9"}])


@breaks("I4")
def a_step_that_its_row_calls_unfinished() -> Ledger:
    ledger = started()
    ledger.steps["pay"]["state"] = "prepared"
    return ledger


@breaks("I4")
def a_step_without_its_row() -> Ledger:
    ledger = started()
    del ledger.steps["pay"]
    return ledger


@breaks("I4")
def a_step_that_no_entry_prepared() -> Ledger:
    ledger = started()
    ledger.steps["forged"] = {**ledger.steps["pay"], "key": "forged"}
    return ledger


@breaks("I4")
def a_row_with_another_idempotency_key() -> Evidence:
    ledger = started()
    return rows_changed(ledger, steps=[{**row, "idempotency_key": "another"} for row in ledger.steps.values()])


@breaks("I4")
def a_doubt_that_its_row_forgot() -> Ledger:
    ledger = in_doubt()
    ledger.steps["charge"]["state"] = "in_doubt"
    return ledger


@breaks("I4")
def a_grant_without_its_row() -> Ledger:
    ledger = started()
    ledger.grants.popitem()
    return ledger


@breaks("I4")
def a_row_that_forgot_a_redemption() -> Ledger:
    ledger = started()
    list(ledger.grants.values())[-1]["redeemed_at"] = None
    return ledger


@breaks("I4")
def an_approval_that_was_never_asked_for() -> Ledger:
    ledger = started()
    ledger.approvals["apr_1"] = {"run": ledger.run, "id": "apr_1", "step": "pay", "consumed_by": None}
    return ledger
