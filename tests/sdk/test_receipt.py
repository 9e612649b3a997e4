"""Receipts: what verifies, what is read from them, the keys they are verified with, and what an earlier one finds."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from itertools import count
from typing import Any

import pytest

from forging import b64, eddsa, es256
from receipts import KID, START, Book, finished, jcs, sha
from stepgrant import receipt
from stepgrant._receipt_keys import Keys
from stepgrant.errors import ReceiptError

BOOK = finished()
GOOD = BOOK.receipt()
GOOD_BYTES = jcs(GOOD)
KEYS = BOOK.jwks


def refused(value: dict[str, Any] | bytes, reason: str, kind: type[ReceiptError], keys: Keys = KEYS) -> ReceiptError:
    with pytest.raises(kind) as caught:
        receipt.verify(value, keys)
    assert caught.value.reason == reason
    return caught.value


# ------------------------------------------------------------------------------------------------------ what it says


def test_a_right_receipt_verifies_and_says_what_it_is() -> None:
    verified = receipt.verify(GOOD_BYTES, KEYS)
    assert (verified.tenant, verified.run, verified.complete, verified.kid) == ("acme", "run_01", True, KID)
    assert verified.head_hash == b64(sha(BOOK.entries[-1]))
    assert verified.head_ts == START + 70
    assert [event.type for event in verified.events][:2] == ["run_opened", "step_prepared"]
    assert (verified.disclosed, verified.hidden, verified.unknown_types) == (6, 0, ())
    assert receipt.verify(GOOD, KEYS) == verified


def test_events_show_what_was_disclosed() -> None:
    completed = receipt.verify(GOOD, KEYS).events[4]
    assert (completed.seq, completed.step, completed.attempt, completed.epoch) == (4, "s1", 1, 1)
    assert completed.disclosed["action.resource"] == "key/alpha"
    assert completed.disclosed["by.subject"] == "workload:w1"
    assert completed.preimages["action.digest"] == {
        "action": "keys.rotate", "args": {"name": "alpha"}, "resource": "key/alpha",
    }  # fmt: skip
    assert completed.preimages["outcome.result"] == {"ok": True}
    assert completed.part("outcome")["status"] == "completed"
    assert completed.part("grant") == {}
    assert receipt.verify(GOOD, KEYS).events[5].cause == "completed"


def test_what_is_left_out_stays_hidden_and_the_rest_verifies() -> None:
    def leave_out(value: dict[str, Any]) -> None:
        value["disclosures"] = [item for item in value["disclosures"] if item["field"] != "by.subject"]

    verified = receipt.verify(BOOK.receipt(leave_out), KEYS)
    assert (verified.disclosed, verified.hidden) == (5, 1)
    assert "by.subject" not in verified.events[0].disclosed


def test_a_digest_can_be_disclosed_without_what_it_is_of() -> None:
    def digests_only(value: dict[str, Any]) -> None:
        for item in value["disclosures"]:
            item.pop("preimage", None)

    opened = receipt.verify(BOOK.receipt(digests_only), KEYS).events[1]
    assert str(opened.disclosed["action.digest"]).startswith("sha-256:")
    assert opened.preimages == {}


def test_a_run_that_goes_on_is_not_complete() -> None:
    book = Book()
    book.add("run_opened", body={"run_key": "nightly"})
    assert not receipt.verify(book.receipt(), book.jwks).complete


CONFIRMED = {"unused": False, "confirmed": True}


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ((), True),
        ((("grant_revoked", CONFIRMED),), True),
        ((("grant_revoked", CONFIRMED), ("grant_revoked", CONFIRMED)), True),
        ((("grant_revoked", {**CONFIRMED, "confirmed": False}),), False),
        ((("grant_revoked", {**CONFIRMED, "confirmed": 1}),), False),
        ((("grant_issued", CONFIRMED),), False),
        ((("step_completed", {}), ("grant_revoked", CONFIRMED)), False),
    ],
)
def test_only_the_confirmed_death_of_credentials_may_follow_the_end(
    later: tuple[tuple[str, dict[str, Any]], ...],
    expected: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    book = Book()
    book.add("run_opened")
    book.add("run_ended")
    for kind, body in later:
        book.add(kind, body=body)
    told = book.receipt(lambda value: value.update(complete=expected))
    assert receipt.verify(told, book.jwks).complete is expected
    with pytest.raises(receipt.ReceiptUnreadable) as refused:
        receipt.verify(book.receipt(lambda value: value.update(complete=not expected)), book.jwks)
    assert refused.value.reason == "wrong_complete"


def test_an_unknown_type_is_hashed_and_reported() -> None:
    book = Book()
    book.add("run_opened")
    book.add("run_admired", body={"why_c": book.commit("run.why", "so good")}, stars=5)
    book.add("run_ended")
    verified = receipt.verify(book.receipt(), book.jwks)
    assert verified.unknown_types == ("run_admired",)
    assert not verified.events[1].known
    assert verified.events[1].disclosed["run.why"] == "so good"


def test_it_says_what_it_does_not_prove() -> None:
    assert len(receipt.DOES_NOT_PROVE) == 5
    assert any("write nothing" in line for line in receipt.DOES_NOT_PROVE)


# --------------------------------------------------------------------------------------------------------- its keys


@pytest.mark.parametrize("form", ["mapping", "text", "bytes", "one key", "with others"])
def test_keys_come_as_jwks_or_as_one_key(form: str) -> None:
    one = {**KEYS["keys"][0]}
    forms: dict[str, Any] = {
        "mapping": KEYS,
        "text": json.dumps(KEYS),
        "bytes": json.dumps(KEYS).encode(),
        "one key": one,
        "with others": {"keys": [{**es256().jwk, "kid": "x"}, {**eddsa().jwk, "kid": "y"}, one]},
    }
    assert receipt.verify(GOOD, forms[form]).kid == KID


def vkey(name: str, jwk: dict[str, str]) -> str:
    typed = b"\x01" + base64.urlsafe_b64decode(jwk["x"] + "=")
    key_id = hashlib.sha256(name.encode() + b"\n" + typed).hexdigest()[:8]
    return f"{name}+{key_id}+{base64.b64encode(typed).decode()}"


def test_keys_come_as_vkey_lines_whose_kid_is_the_thumbprint() -> None:
    jwk = BOOK.key.jwk
    thumbprint = b64(sha(jcs({"crv": "Ed25519", "kty": "OKP", "x": jwk["x"]})))
    lines = vkey("other.example", eddsa().jwk) + "\n\n" + vkey("broker.example", jwk) + "\n"
    assert receipt.verify(BOOK.receipt(kid=thumbprint), lines).kid == thumbprint


def test_the_published_example_of_a_vkey_is_read() -> None:
    """C2SP signed-note's example key; an unknown key is then what is wrong, not its reading."""
    example = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    refused(GOOD, "unknown_key", receipt.HeadInvalid, example)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"keys": []}, "keys_empty"),
        ({"keys": [es256().jwk]}, "keys_empty"),
        ({"keys": "x"}, "keys_unreadable"),
        ({"keys": ["x"]}, "keys_unreadable"),
        ({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}, "keys_unreadable"),
        ({"keys": [{**eddsa().jwk, "kid": 7}]}, "keys_unreadable"),
        ({"keys": [{**eddsa().jwk, "kid": "a"}, {**eddsa().jwk, "kid": "a"}]}, "keys_ambiguous"),
        (BOOK.key.private_jwk, "keys_private"),
        (b"{", "keys_unreadable"),
        ("", "keys_empty"),
        ("\ud800", "keys_unreadable"),
        ("name+hash", "keys_unreadable"),
        ("name+530d903a+!!", "keys_unreadable"),
        (vkey("a", BOOK.key.jwk).replace("a+", "b+", 1), "keys_unreadable"),
    ],
    ids=count(),
)
def test_keys_that_are_none_are_named(keys: Keys, reason: str) -> None:
    refused(GOOD, reason, receipt.KeysUnreadable, keys)


# ------------------------------------------------------------------------------------------------- earlier receipts


def test_a_later_receipt_continues_an_earlier_one() -> None:
    book = Book()
    book.add("run_opened")
    earlier = receipt.verify(book.receipt(), book.jwks)
    book.add("run_ended")
    later = receipt.verify(book.receipt(), book.jwks)
    later.continues(earlier)
    with pytest.raises(receipt.ChainBroken) as caught:
        earlier.continues(later)
    assert caught.value.reason == "shorter_than_earlier"


def test_a_rewritten_history_is_found_by_an_earlier_receipt() -> None:
    """The broker's own key signs both: only who kept the first one can tell."""
    key = eddsa()
    first, second = Book(key), Book(key)
    first.add("run_opened")
    second.add("run_opened", epoch=7)
    second.add("run_ended")
    with pytest.raises(receipt.ChainBroken) as caught:
        receipt.verify(second.receipt(), second.jwks).continues(receipt.verify(first.receipt(), first.jwks))
    assert (caught.value.reason, caught.value.position) == ("forked", 0)
    other = receipt.verify(GOOD, KEYS)
    with pytest.raises(receipt.ChainBroken):
        type(other)(**{**{name: getattr(other, name) for name in other.__slots__}, "run": "x"}).continues(other)


def test_errors_survive_pickle() -> None:
    error = refused({**GOOD, "entries": GOOD["entries"][1:]}, "entry_out_of_order", receipt.ChainBroken)
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(twin), twin.reason, twin.position, str(twin)) == (type(error), error.reason, 0, str(error))
