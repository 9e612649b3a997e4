"""Receipts of version 2: their place in the log, the witnesses of its head, parts of a run, the policy's text."""

from __future__ import annotations

import copy
from itertools import count
from typing import Any

import pytest

from forging import eddsa
from receipts import COSIGNED_S, ORIGIN, WITNESSES, Change, digest, finished, jcs, vkey
from stepgrant import receipt, tlog
from stepgrant.canonical import b64u_decode
from stepgrant.errors import ReceiptError

BOOK = finished()
KEYS = BOOK.jwks
POLICY = "\n".join(
    [
        f"log {vkey(ORIGIN, 1, BOOK.key)}",
        f"witness alice {vkey('alice', 4, WITNESSES['alice'])}",
        f"witness bob {vkey('bob', 4, WITNESSES['bob'])}",
        "group both all alice bob",
        "quorum both",
    ]
)


def refused(value: dict[str, Any], reason: str, **options: Any) -> ReceiptError:  # noqa: ANN401 - of `verify`
    with pytest.raises(ReceiptError) as caught:
        receipt.verify(value, KEYS, **options)
    assert caught.value.reason == reason, str(caught.value)
    return caught.value


def test_a_run_in_the_log_verifies_offline() -> None:
    told = receipt.verify(BOOK.logged(), KEYS, need_log=True)
    assert told.logged is not None
    assert (told.logged.origin, told.logged.size, told.logged.cosigned) == (ORIGIN, 15, {})
    assert told.logged.indexes == (1, 3, 5, 7, 9, 11, 13)
    assert (told.scope, told.complete, len(told.events)) == (("run", "run_01"), True, 7)


def test_each_entry_has_a_proof_file_of_its_own() -> None:
    told = receipt.verify(BOOK.logged(cosigned=("alice",)), KEYS)
    assert told.logged is not None
    for position, event in enumerate(told.events):
        proof = tlog.read_proof(told.logged.tlog_proof(position), ORIGIN)
        proof.verify(b64u_decode(event.hash))
        assert len(proof.note.signatures) == 2


def test_the_log_policy_asks_for_its_witnesses() -> None:
    told = receipt.verify(BOOK.logged(cosigned=("alice", "bob")), KEYS, log_policy=POLICY)
    assert told.logged is not None
    assert told.logged.cosigned == {"alice": COSIGNED_S, "bob": COSIGNED_S}
    refused(BOOK.logged(cosigned=("alice",)), "quorum", log_policy=POLICY)
    refused(BOOK.logged(), "quorum", log_policy=POLICY)
    refused(BOOK.logged(own=eddsa(), cosigned=("alice", "bob")), "unknown_key", log_policy=POLICY)
    refused(BOOK.logged(own=eddsa()), "unknown_key")
    other = POLICY.replace(vkey(ORIGIN, 1, BOOK.key), vkey("other.example/log", 1, BOOK.key))
    refused(BOOK.logged(cosigned=("alice", "bob")), "other_log", log_policy=other)


def test_a_receipt_that_is_not_in_the_log_says_so() -> None:
    missing = BOOK.logged(lambda v: v.update(log=None))
    assert receipt.verify(missing, KEYS).logged is None
    refused(missing, "not_logged", need_log=True)
    refused(missing, "not_logged", log_policy=POLICY)
    refused(BOOK.receipt(), "not_logged", need_log=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v["log"].update(checkpoint=1), "log_malformed"),
        (lambda v: v["log"].pop("proofs"), "log_malformed"),
        (lambda v: v["log"]["proofs"].pop(), "log_malformed"),
        (lambda v: v["log"]["proofs"][2].update(extra=1), "log_malformed"),
        (lambda v: v["log"]["proofs"][2].update(index=-1), "log_malformed"),
        (lambda v: v["log"]["proofs"][2].update(index=True), "log_malformed"),
        (lambda v: v["log"]["proofs"][2].update(hashes="x"), "log_malformed"),
        (lambda v: v["log"]["proofs"][2].update(hashes=["AAAA"]), "log_malformed"),
        (lambda v: v["log"]["proofs"][2]["hashes"].append("A" * 43 + "="), "not_in_log"),
        (lambda v: v["log"]["proofs"][2]["hashes"].pop(), "not_in_log"),
        (lambda v: v["log"]["proofs"][2].update(index=6), "not_in_log"),
        (lambda v: v["log"]["proofs"][2].update(index=10**15), "not_in_log"),
        (lambda v: v["log"]["proofs"].reverse(), "not_in_log"),
        (lambda v: v["log"].update(checkpoint=v["log"]["checkpoint"].replace("\n15\n", "\n16\n")), "bad_signature"),
        (lambda v: v["log"].update(checkpoint="nothing"), "not_a_note"),
        (lambda v: v.update(log=[]), "log_malformed"),
        (lambda v: v.update(scope={"kind": "run", "id": "run_02"}), "wrong_members"),
        (lambda v: v.update(scope={"kind": "all", "id": "run_01"}), "wrong_members"),
        (lambda v: v.update(scope={"kind": "run"}), "wrong_members"),
        (lambda v: v.pop("policies"), "wrong_members"),
    ],
    ids=count(),
)
def test_what_is_wrong_with_its_place_is_named(change: Change, reason: str) -> None:
    refused(BOOK.logged(change), reason)


def test_an_order_that_the_log_does_not_have_is_found() -> None:
    """Two leaves with the same bytes cannot stand for one entry twice: indexes must rise."""

    def same_place(value: dict[str, Any]) -> None:
        value["log"]["proofs"][1] = copy.deepcopy(value["log"]["proofs"][0])

    assert refused(BOOK.logged(same_place), "log_order").position == 1


# --------------------------------------------------------------------------------------------------- parts of a run


def test_one_step_is_proven_without_the_rest_of_the_run() -> None:
    told = receipt.verify(BOOK.logged(scope=("step", "s1")), KEYS)
    assert [event.seq for event in told.events] == [1, 2, 3, 4, 5]
    assert (told.complete, told.kid, told.head_ts, told.scope) == (False, None, None, ("step", "s1"))


def test_one_grant_is_proven_without_the_rest_of_the_run() -> None:
    told = receipt.verify(BOOK.logged(scope=("grant", "grn_1")), KEYS)
    assert [event.type for event in told.events] == ["grant_issued"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.update(log=None), "not_logged"),
        (lambda v: v.update(complete=True), "wrong_complete"),
        (lambda v: v.update(head={}), "head_foreign"),
        (lambda v: v.update(entries=[]), "no_entries"),
        (lambda v: v.update(scope={"kind": "step", "id": "s2"}), "entry_foreign"),
        (lambda v: v.update(scope={"kind": "grant", "id": "grn_1"}), "entry_foreign"),
        (lambda v: v["entries"].reverse(), "entry_out_of_order"),
        (lambda v: v.update(tenant="other"), "entry_foreign"),
        (lambda v: v.update(run="run_02"), "entry_foreign"),
    ],
    ids=count(),
)
def test_what_is_wrong_with_a_part_is_named(change: Change, reason: str) -> None:
    refused(BOOK.logged(change, scope=("step", "s1")), reason)


def test_neighbours_that_do_not_follow_one_another_are_found() -> None:
    forged = finished(BOOK.key)
    forged.entries[2] = BOOK.entries[2].replace(b"tool_allowed", b"tool_denied!")
    assert refused(forged.logged(scope=("step", "s1")), "wrong_hash").position == 2


# ------------------------------------------------------------------------------------------------------ policy text

FILES = {"main.rego": "package stepgrant", "data.json": "{}"}
REVISION = "1:" + digest(jcs([{"digest": digest(FILES[path].encode()), "path": path} for path in sorted(FILES)]))


def under(revision: str, policies: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """A receipt whose decisions were made under this revision."""
    book = finished(BOOK.key)
    decision = {"effect": "allow", "reasons": [], "policy_revision": revision, "decision_id": "dec_2"}
    book.entries.pop()
    book.add("decision", step="s2", attempt=1, decision=decision)
    return book.logged(lambda v: v.update(policies=policies))


def test_the_policys_text_is_the_one_that_decisions_name() -> None:
    told = receipt.verify(under(REVISION, [{"revision": REVISION, "files": FILES}]), KEYS)
    assert told.policies == {REVISION: FILES}
    assert receipt.verify(under(REVISION, []), KEYS).policies == {}


@pytest.mark.parametrize(
    ("policies", "reason"),
    [
        ({}, "policy_malformed"),
        ([{"revision": REVISION}], "policy_malformed"),
        ([{"revision": REVISION, "files": {}}], "policy_malformed"),
        ([{"revision": REVISION, "files": {"main.rego": 1}}], "policy_malformed"),
        ([{"revision": REVISION, "files": {**FILES, "main.rego": "package other"}}], "wrong_policy_text"),
        ([{"revision": REVISION, "files": {"main.rego": FILES["main.rego"]}}], "wrong_policy_text"),
        ([{"revision": "2:" + REVISION[2:], "files": FILES}], "policy_foreign"),
        ([{"revision": REVISION, "files": FILES}] * 2, "policy_foreign"),
    ],
    ids=count(),
)
def test_another_text_is_refused(policies: Any, reason: str) -> None:  # noqa: ANN401 - JSON
    refused(under(REVISION, policies), reason)
