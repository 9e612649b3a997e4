"""Nonces: current for two epochs, the same on all replicas, worthless without the key."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrant_broker.domain.errors import NonceRequired
from stepgrant_broker.identity.nonces import Nonces

KEY = b"k" * 32
NOW = 1_790_000_100.0
EPOCH_START = NOW - NOW % 300


def accepted(nonce: str | None, now_s: float, nonces: Nonces | None = None) -> bool:
    try:
        (nonces or Nonces(KEY)).check(nonce, now_s)
    except NonceRequired:
        return False
    return True


def test_a_nonce_is_current_in_its_epoch_and_the_next() -> None:
    nonce = Nonces(KEY).current(EPOCH_START)

    assert [accepted(nonce, EPOCH_START + offset) for offset in (-1, 0, 299, 300, 599, 600, 900)] == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_no_nonce_outlives_what_is_said_of_it() -> None:
    nonces = Nonces(KEY)

    assert nonces.lifetime_s == 600
    assert not accepted(nonces.current(EPOCH_START), EPOCH_START + nonces.lifetime_s)


def test_replicas_agree_and_others_do_not() -> None:
    assert accepted(Nonces(KEY).current(NOW), NOW, Nonces(KEY))
    assert not accepted(Nonces(KEY).current(NOW), NOW, Nonces(b"x" * 32))
    assert Nonces(KEY).current(NOW) == Nonces(KEY).current(EPOCH_START)
    assert Nonces(KEY).current(NOW) != Nonces(KEY).current(NOW + 300)


@pytest.mark.parametrize("nonce", [None, "", "A" * 22, "é", "\ud800"])
def test_what_is_no_nonce_is_asked_for_again(nonce: str | None) -> None:
    with pytest.raises(NonceRequired) as caught:
        Nonces(KEY).check(nonce, NOW)

    assert caught.value.code == "use_dpop_nonce"


@given(st.text())
def test_no_text_is_taken_for_a_nonce(text: str) -> None:
    assert not accepted(text, NOW)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Nonces(b"k" * 31)


def test_the_key_is_shown_and_given_away_nowhere() -> None:
    nonces = Nonces(KEY)

    assert repr(nonces) == "Nonces(epoch_s=300, <masked>)"
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            take(nonces)
