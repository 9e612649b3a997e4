"""Attacks on receipts, by name. The attacker holds real receipts, public keys, and whatever a broker may give out."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.ledgers import Ledger, copied, write
from forging import b64, eddsa, es256
from stepgrant import canonical, receipt
from stepgrant_broker.ledger.receipt import make_receipt

Receipt = dict[str, Any]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Receipt, dict[str, Any]]:
    """A real receipt of a finished run, and the broker's public keys."""
    folder = tmp_path_factory.mktemp("real")

    async def make() -> tuple[Receipt, dict[str, Any]]:
        run = await write(folder / "written")
        async with copied(folder / "written", run, folder / "copy") as ledger:
            return await whole(ledger), await ledger.keys()

    (folder / "written").mkdir()
    return asyncio.run(make())


async def whole(ledger: Ledger) -> Receipt:
    return await make_receipt(ledger.store, ledger.wrap, ledger.signer, "acme", ledger.run)


def refused(value: Receipt, keys: dict[str, Any], kind: type[receipt.ReceiptError]) -> str:
    with pytest.raises(kind) as caught:
        receipt.verify(canonical.dumps(value), keys)
    return caught.value.reason


def entry_of(value: Receipt, position: int) -> dict[str, Any]:
    entry = canonical.loads(canonical.b64u_decode(value["entries"][position]))
    assert isinstance(entry, dict)
    return dict(entry)


def test_the_real_one_holds(real: tuple[Receipt, dict[str, Any]]) -> None:
    value, keys = real
    assert receipt.verify(canonical.dumps(value), keys).complete


def test_rewriting_an_entry_and_all_hashes_after_it_fails_at_the_signature(
    real: tuple[Receipt, dict[str, Any]],
) -> None:
    """The attacker can hash as well as we can; only the head's key is missing."""
    value, keys = copy.deepcopy(real[0]), real[1]
    prev = None
    for position in range(len(value["entries"])):
        entry = entry_of(value, position)
        if entry["type"] == "approval_decided":
            entry["body"]["verdict"] = "deny"
        if prev is not None:
            entry["prev"] = prev
        data = canonical.dumps(entry)
        prev = b64(hashlib.sha256(data).digest())
        value["entries"][position] = b64(data)
    assert refused(value, keys, receipt.HeadInvalid) == "wrong_head"
    value["head"]["hash"] = prev
    assert refused(value, keys, receipt.HeadInvalid) == "bad_signature"


def test_signing_the_rewritten_run_with_ones_own_key_fails(real: tuple[Receipt, dict[str, Any]]) -> None:
    value, keys = copy.deepcopy(real[0]), real[1]
    mine = eddsa()
    head = {name: value["head"][name] for name in ("tenant", "run", "seq", "hash", "ts")}
    value["head"]["signature"]["value"] = b64(
        mine.sign(b"stepgrant run head v1\x00" + canonical.dumps({"v": 1, **head}))
    )
    assert refused(value, keys, receipt.HeadInvalid) == "bad_signature"
    value["head"]["signature"]["kid"] = "mine"
    assert refused(value, keys, receipt.HeadInvalid) == "unknown_key"


def test_a_key_inside_the_receipt_is_never_used(real: tuple[Receipt, dict[str, Any]]) -> None:
    value, keys = copy.deepcopy(real[0]), real[1]
    value["head"]["signature"]["jwk"] = eddsa().jwk
    assert refused(value, keys, receipt.HeadInvalid) == "head_malformed"


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256", "", None])
def test_the_receipt_does_not_choose_the_algorithm(real: tuple[Receipt, dict[str, Any]], alg: str | None) -> None:
    value, keys = copy.deepcopy(real[0]), real[1]
    value["head"]["signature"]["alg"] = alg
    assert refused(value, keys, receipt.HeadInvalid) == "head_malformed"


def test_a_key_for_grants_signs_no_heads(real: tuple[Receipt, dict[str, Any]]) -> None:
    value, keys = copy.deepcopy(real[0]), real[1]
    grants = es256()
    kid = value["head"]["signature"]["kid"]
    confused = {"keys": [{**grants.jwk, "kid": kid}, *[{**key, "kid": "other"} for key in keys["keys"]]]}
    assert refused(value, confused, receipt.HeadInvalid) == "unknown_key"


def test_a_signature_over_a_head_of_another_kind_is_refused(real: tuple[Receipt, dict[str, Any]]) -> None:
    """The same key may one day sign tree heads: its context keeps the two apart."""
    value = copy.deepcopy(real[0])
    key = eddsa()
    head = {name: value["head"][name] for name in ("tenant", "run", "seq", "hash", "ts")}
    value["head"]["signature"] = {"kid": "k", "alg": "EdDSA", "value": b64(key.sign(canonical.dumps({"v": 1, **head})))}
    assert refused(value, {"keys": [{**key.jwk, "kid": "k"}]}, receipt.HeadInvalid) == "bad_signature"


CUTS: list[Callable[[Receipt], object]] = [
    lambda v: v["entries"].pop(),
    lambda v: v["entries"].pop(0),
    lambda v: v["entries"].pop(9),
    lambda v: v["entries"].__setitem__(slice(9, 11), v["entries"][9:11][::-1]),
    lambda v: v["entries"].append(v["entries"][-1]),
]


@pytest.mark.parametrize("cut", CUTS, ids=["the end", "the beginning", "the middle", "reordered", "repeated"])
def test_a_run_with_entries_left_out_or_moved_is_refused(
    real: tuple[Receipt, dict[str, Any]], cut: Callable[[Receipt], object]
) -> None:
    value, keys = copy.deepcopy(real[0]), real[1]
    cut(value)
    with pytest.raises(receipt.ReceiptError):
        receipt.verify(canonical.dumps(value), keys)


def test_a_finished_run_cannot_be_passed_off_as_open_nor_an_open_one_as_finished(
    real: tuple[Receipt, dict[str, Any]],
) -> None:
    value, keys = copy.deepcopy(real[0]), real[1]
    value["complete"] = False
    assert refused(value, keys, receipt.ReceiptUnreadable) == "wrong_complete"


def test_anothers_disclosure_opens_nothing_here(real: tuple[Receipt, dict[str, Any]]) -> None:
    """A value that was committed to in another run has another commitment, whatever it says."""
    value, keys = copy.deepcopy(real[0]), real[1]
    r, data = b"r" * 32, canonical.dumps("order/1")
    planted = {"c": b64(hmac.digest(r, data, "sha256")), "field": "action.resource", "r": b64(r), "value": "order/1"}
    value["disclosures"] = sorted([*value["disclosures"], planted], key=lambda item: str(item["c"]))
    assert refused(value, keys, receipt.DisclosureInvalid) == "disclosure_foreign"


def test_a_hidden_value_cannot_be_confirmed_by_guessing_it(real: tuple[Receipt, dict[str, Any]]) -> None:
    """The verifier that knows the right value still has no `r`, and `r` of one value opens no other."""
    value, keys = copy.deepcopy(real[0]), real[1]
    hidden = next(item for item in value["disclosures"] if item["field"] == "principal")
    other = next(item for item in value["disclosures"] if item["field"] == "by.subject")
    for guess in (b"", bytes(32), canonical.b64u_decode(other["r"])):
        hidden["r"] = b64(guess)
        assert refused(value, keys, receipt.DisclosureInvalid) == "wrong_value"


def test_the_resource_cannot_be_shown_as_the_subject(real: tuple[Receipt, dict[str, Any]]) -> None:
    value, keys = copy.deepcopy(real[0]), real[1]
    for item in value["disclosures"]:
        if item["field"] == "action.resource":
            item["field"] = "by.subject"
    assert refused(value, keys, receipt.DisclosureInvalid) == "disclosure_misnamed"


async def test_a_forked_history_signed_by_the_broker_is_found_by_an_earlier_receipt(tmp_path: Path) -> None:
    """The attacker is the broker's operator: database, keys and all. Who kept a receipt still finds it."""
    (tmp_path / "written").mkdir()
    run = await write(tmp_path / "written")
    async with copied(tmp_path / "written", run, tmp_path / "honest") as ledger:
        earlier = receipt.verify(canonical.dumps(await whole(ledger)), await ledger.keys())
    async with copied(tmp_path / "written", run, tmp_path / "forked") as ledger:
        ledger.rewrite(lambda _, entry: entry.update(mode="observe"))
        assert await ledger.findings() == []
        forked = receipt.verify(canonical.dumps(await whole(ledger)), await ledger.keys())
    assert forked.complete
    with pytest.raises(receipt.ChainBroken) as caught:
        forked.continues(earlier)
    assert caught.value.reason == "forked"
