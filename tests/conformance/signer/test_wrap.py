"""One suite for the port `KeyWrap`, run over every adapter: what rests can only be read again where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pytest

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.ports import KeyWrap, Wrapped
from stepgrant_broker.signing.wrap import LocalWrap

ADAPTERS: Final[Mapping[str, Callable[[Path], KeyWrap]]] = {
    "local": lambda folder: LocalWrap.open(folder / "keys", create=True)
}


@pytest.fixture(params=sorted(ADAPTERS))
def wrap(request: pytest.FixtureRequest, tmp_path: Path) -> KeyWrap:
    return ADAPTERS[request.param](tmp_path)


@pytest.mark.parametrize("plain", [b"", b"k" * 32, bytes(range(256)) * 64], ids=len)
def test_what_is_wrapped_unwraps(wrap: KeyWrap, plain: bytes) -> None:
    assert wrap.unwrap(wrap.wrap(plain, b"here"), b"here") == plain


def test_wrapping_twice_shows_no_equality(wrap: KeyWrap) -> None:
    one, two = wrap.wrap(b"secret", b"here"), wrap.wrap(b"secret", b"here")

    assert one.ciphertext != two.ciphertext
    assert b"secret" not in one.ciphertext


def test_what_was_moved_changed_or_erased_does_not_unwrap(wrap: KeyWrap) -> None:
    made = wrap.wrap(b"secret", b"here")
    for wrapped, aad in [
        (made, b"elsewhere"),
        (Wrapped("unknown", made.nonce, made.ciphertext), b"here"),
        (Wrapped(made.key_id, made.nonce, made.ciphertext[:-1] + bytes([made.ciphertext[-1] ^ 1])), b"here"),
        (Wrapped(made.key_id, b"", b""), b"here"),
    ]:
        with pytest.raises(StoreUnavailable):
            wrap.unwrap(wrapped, aad)
