"""Receipts and all keys that a broker ever had: old ones verify for ever, those by a stolen key only with witnesses."""

# ruff: noqa: ANN401 - options by name

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forging import ForgersKey, eddsa, es256
from receipts import COSIGNED_S, ORIGIN, WITNESSES, Book, finished, jcs, vkey
from stepgrant import receipt
from stepgrant._keys import verifying_key
from stepgrant.errors import ReceiptError
from stepgrant.receipt import HeadInvalid, KeyRevoked, KeysUnreadable, LogProofInvalid
from stepgrant.tlog import NoteInvalid

OLD, NEW = eddsa(b"old"), eddsa(b"new")
SIZE = 2 * len(finished(OLD).entries) + 1
BOTH = ("alice", "bob")
AFTER_MS = 1000 * COSIGNED_S + 1
"""A moment after the witnesses cosigned."""


def kid_of(key: ForgersKey) -> str:
    return verifying_key(key.jwk).jkt


def told(key: ForgersKey, purpose: str = "heads", **more: Any) -> dict[str, Any]:
    whole = {"number": 1, "since": 0, "signs_from": 0, "until": None, "revoked_at": None, "revoked_size": None}
    return {"purpose": purpose, "kid": kid_of(key), "jwk": dict(key.jwk), **whole, **more}


def export(*keys: dict[str, Any], **more: Any) -> bytes:
    return jcs({"v": 1, "kind": "stepgrant.keys", "log": ORIGIN, "keys": list(keys), **more})


def revoked(at: int = AFTER_MS, size: int = SIZE) -> bytes:
    return export(told(OLD, until=1, revoked_at=at, revoked_size=size), told(NEW, number=2))


def policy(quorum: str, *logs: ForgersKey) -> str:
    lines = [f"log {vkey(ORIGIN, 1, key)}" for key in logs or (OLD,)]
    lines += [f"witness {name} {vkey(name, 4, key)}" for name, key in WITNESSES.items()]
    return "\n".join([*lines, "group two all alice bob", f"quorum {quorum}"])


def logged(
    signed: ForgersKey = OLD, log: ForgersKey | None = None, cosigned: tuple[str, ...] = BOTH, **more: Any
) -> dict[str, Any]:
    """A receipt whose run head is by one key and whose tree head is by another."""

    def name(value: dict[str, Any]) -> None:
        if value["head"] is not None:
            value["head"]["signature"]["kid"] = kid_of(signed)

    return finished(signed).logged(name, cosigned=cosigned, own=log or signed, **more)


def unlogged(key: ForgersKey) -> dict[str, Any]:
    return finished(key).receipt(kid=kid_of(key))


def refused(reason: str, kind: type[ReceiptError], value: dict[str, Any], keys: bytes, **more: Any) -> None:
    with pytest.raises(kind) as caught:
        receipt.verify(value, keys, **more)
    assert caught.value.reason == reason


# ------------------------------------------------------------------------------------------------------------ rotation


@pytest.mark.parametrize("key", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("make", [unlogged, logged])
def test_receipts_of_all_times_verify_with_one_export(
    key: ForgersKey, make: Callable[[ForgersKey], dict[str, Any]]
) -> None:
    keys = export(told(OLD, until=1), told(NEW, number=2), told(es256(), "grants"))
    assert receipt.verify(make(key), keys).kid == kid_of(key)
    refused("unknown_key", HeadInvalid, make(key), export(told(eddsa(b"another"))))


def test_a_key_of_another_purpose_vouches_for_nothing() -> None:
    keys = export(told(NEW), told(OLD, "access"))
    refused("unknown_key", HeadInvalid, unlogged(OLD), keys)
    refused("unknown_key", NoteInvalid, logged(OLD, scope=("step", "s1")), keys)


# ---------------------------------------------------------------------------------------------------------- revocation


@pytest.mark.parametrize("scope", [("run", "run_01"), ("step", "s1")])
def test_what_witnesses_saw_before_the_theft_was_known_holds(scope: tuple[str, str]) -> None:
    verified = receipt.verify(logged(scope=scope), revoked(), log_policy=policy("two"))
    assert verified.logged is not None
    assert verified.logged.cosigned == dict.fromkeys(BOTH, COSIGNED_S)


def test_a_new_receipt_of_the_same_run_holds() -> None:
    assert receipt.verify(logged(NEW), revoked()).kid == kid_of(NEW)
    assert receipt.verify(unlogged(NEW), revoked()).kid == kid_of(NEW)


def test_a_run_head_by_a_revoked_key_holds_in_a_log_by_another_one() -> None:
    assert receipt.verify(logged(OLD, log=NEW), revoked()).kid == kid_of(OLD)


@pytest.mark.parametrize(
    ("keys", "cosigned", "quorum"),
    [
        pytest.param(revoked(), BOTH, None, id="whose witnesses nobody knows"),
        pytest.param(revoked(), BOTH, "none", id="whose policy asks for none"),
        pytest.param(revoked(at=1000 * COSIGNED_S), BOTH, "two", id="cosigned in that very moment"),
        pytest.param(revoked(at=1), BOTH, "two", id="cosigned after"),
        pytest.param(revoked(size=SIZE - 1), BOTH, "two", id="of a size that the log had not"),
    ],
)
@pytest.mark.parametrize("scope", [("run", "run_01"), ("step", "s1")])
def test_a_head_by_a_revoked_key_does_not_hold(
    keys: bytes, cosigned: tuple[str, ...], quorum: str | None, scope: tuple[str, str]
) -> None:
    value = logged(cosigned=cosigned, scope=scope)
    refused("key_revoked", KeyRevoked, value, keys, log_policy=None if quorum is None else policy(quorum))


def test_without_the_log_nothing_by_a_revoked_key_holds() -> None:
    refused("key_revoked", KeyRevoked, unlogged(OLD), revoked())
    refused("key_revoked", KeyRevoked, unlogged(OLD), revoked(), log_policy=policy("two"))
    refused("not_logged", LogProofInvalid, unlogged(NEW), revoked(), log_policy=policy("two", NEW))


def test_both_signatures_on_a_head_are_one_that_counts() -> None:
    """In the overlap: who revokes the old key still believes the new one's."""
    value = logged(OLD, log=NEW)
    other = logged(OLD)["log"]["checkpoint"].partition("\n\n")[2].splitlines(keepends=True)[0]
    top, _, signatures = value["log"]["checkpoint"].partition("\n\n")
    value["log"]["checkpoint"] = f"{top}\n\n{other}{signatures}"
    assert receipt.verify(value, revoked()).kid == kid_of(OLD)
    assert receipt.verify(value, export(told(OLD))).kid == kid_of(OLD)


def test_a_revocation_is_not_taken_back_by_another_line() -> None:
    keys = export(told(OLD, revoked_at=5, revoked_size=1), told(OLD), told(OLD, revoked_at=AFTER_MS, revoked_size=SIZE))
    refused("key_revoked", KeyRevoked, logged(), keys, log_policy=policy("two"))


# ------------------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(export(told(OLD), v=2), id="another version"),
        pytest.param(export(told(OLD), v=None), id="no version"),
        pytest.param(export(told(OLD), keys={}), id="no list"),
        pytest.param(export({"purpose": "heads"}), id="no jwk"),
        pytest.param(export(told(OLD, jwk=[])), id="a list for a jwk"),
        pytest.param(export(told(OLD, kid=kid_of(NEW))), id="the kid of another"),
        pytest.param(export(told(OLD, jwk={**OLD.jwk, "kid": "k"})), id="a name of its own"),
        pytest.param(export(told(OLD, revoked_at=1)), id="revoked without a size"),
        pytest.param(export(told(OLD, revoked_at=-1, revoked_size=1)), id="revoked before time"),
        pytest.param(export(told(OLD, revoked_at=True, revoked_size=1)), id="revoked, true"),
        pytest.param(export(told(OLD, revoked_at="1", revoked_size="1")), id="revoked, in words"),
    ],
)
def test_an_export_that_cannot_be_read_is_refused(keys: bytes) -> None:
    refused("keys_unreadable", KeysUnreadable, unlogged(OLD), keys)


def test_an_export_without_keys_of_heads_is_empty() -> None:
    refused("keys_empty", KeysUnreadable, unlogged(OLD), export())
    refused("keys_empty", KeysUnreadable, unlogged(OLD), export(told(OLD, "grants")))


def test_a_private_key_in_an_export_is_refused() -> None:
    refused("keys_private", KeysUnreadable, unlogged(OLD), export(told(OLD, jwk={**OLD.jwk, "d": "x"})))


def test_a_plain_key_set_knows_nothing_of_revocations() -> None:
    book: Book = finished(OLD)
    assert receipt.verify(book.receipt(), book.jwks).complete
