"""What is secret in memory: kept for as long as it is needed, shown by nothing, and never on its way to a disk."""

from __future__ import annotations

import copy
import pickle

import pytest

from stepgrant_broker.domain import aad, chain_keys
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.commitments import Committer
from stepgrant_broker.domain.ports import Minted
from stepgrant_broker.domain.writes import ChainKey
from stepgrant_broker.signing.wrap import LocalWrap, WrapError

SECRET = "hunter2"
WRAP = LocalWrap([b"w" * 32], b"r" * 32)
STRANGER = LocalWrap([b"s" * 32], b"r" * 32)


def key_of(run: str, plain: bytes = b"k" * 32, tenant: str = "acme") -> ChainKey:
    return ChainKey(tenant, run, WRAP.wrap(plain, aad.chain_key(tenant, run)))


@pytest.mark.parametrize("secret", [Keys(), Committer(b"k" * 32), Minted("login", {"password": SECRET}, 7)])
def test_it_can_be_neither_pickled_nor_copied(secret: object) -> None:
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"can ?not be pickled|neither pickled nor copied"):
            leave(secret)


def test_a_credential_shows_how_many_fields_it_has_and_no_more() -> None:
    shown = repr(Minted("login", {"username": "v-1", "password": SECRET}, 7, lease="lease-1"))
    assert shown == "Minted(kind='login', fields=<2 masked>, expires_at=7)"


def test_a_key_is_unwrapped_once() -> None:
    keys, key = Keys(), key_of("run_1")
    assert keys.unwrap(key, WRAP) == b"k" * 32
    assert keys.unwrap(key, STRANGER) == b"k" * 32, "it needs nobody any more"
    with pytest.raises(WrapError):
        Keys().unwrap(key, STRANGER)


def test_one_that_was_wrapped_anew_or_moved_is_another_key() -> None:
    keys, key = Keys(), key_of("run_1")
    keys.unwrap(key, WRAP)
    assert keys.unwrap(key_of("run_1", b"n" * 32), WRAP) == b"n" * 32
    with pytest.raises(WrapError):
        keys.unwrap(ChainKey("acme", "run_2", key.wrapped), WRAP)


def test_a_chain_that_is_forgotten_takes_all_its_keys_along_and_no_others() -> None:
    keys, kept = Keys(), [key_of("run_2"), key_of("run_1", tenant="globex")]
    gone = [key_of("run_1"), key_of("run_1", b"n" * 32)]
    for key in (*kept, *gone):
        keys.unwrap(key, WRAP)
    keys.forget("acme", "run_1")
    for key in gone:
        with pytest.raises(WrapError):
            keys.unwrap(key, STRANGER)
    assert [keys.unwrap(key, STRANGER) for key in kept] == [b"k" * 32] * 2


def test_the_oldest_key_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_keys, "KEYS_KEPT", 2)
    keys, known = Keys(), [key_of(f"run_{number}") for number in range(3)]
    for key in known:
        keys.unwrap(key, WRAP)
    with pytest.raises(WrapError):
        keys.unwrap(known[0], STRANGER)
    assert [keys.unwrap(key, STRANGER) for key in known[1:]] == [b"k" * 32] * 2
