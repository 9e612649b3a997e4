"""One suite for the port `KeyWrap`, run over every adapter: what rests can only be read again where it belongs."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import pytest_asyncio

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.ports import KeyWrap, Wrapped
from stepgrant_broker.signing.transit_wrap import TransitWrap
from stepgrant_broker.signing.wrap import LocalWrap
from vaulted import client, transit_of


@asynccontextmanager
async def local(_: pytest.FixtureRequest, folder: Path) -> AsyncIterator[LocalWrap]:
    yield LocalWrap.open(folder / "keys", create=True)


@asynccontextmanager
async def transit(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[LocalWrap]:
    server = request.getfixturevalue("vault_server")
    async with client(server.addr, server.root_token_file) as vault:
        yield await TransitWrap.open_with(transit_of(server, vault), folder / "keys", create=True)


Make: TypeAlias = Callable[[pytest.FixtureRequest, Path], AbstractAsyncContextManager[LocalWrap]]
ADAPTERS: Final[Mapping[str, Make]] = {"local": local, "transit": transit}


@pytest_asyncio.fixture(params=["local", pytest.param("transit", marks=pytest.mark.needs("vault"))])
async def wrap(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalWrap]:
    async with ADAPTERS[request.param](request, tmp_path) as made:
        yield made


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


async def test_a_newer_key_wraps_and_the_older_one_goes_on_unwrapping(wrap: LocalWrap) -> None:
    before = wrap.wrap(b"secret", b"here")
    made = await wrap.rotate()
    after = wrap.wrap(b"secret", b"here")
    assert (before.key_id != made, after.key_id, wrap.key_id) == (True, made, made)
    assert {wrap.unwrap(one, b"here") for one in (before, after)} == {b"secret"}
    assert len(before.key_id) == len(after.key_id) == 18, "a key that is written over has the same length"


async def test_a_key_that_was_taken_away_unwraps_nothing(wrap: LocalWrap, tmp_path: Path) -> None:
    before = wrap.wrap(b"secret", b"here")
    await wrap.rotate()
    (old,) = (tmp_path / "keys").glob("wrap-1.*")
    old.unlink()
    await wrap.refresh()
    with pytest.raises(StoreUnavailable, match="a key that is not in the key folder"):
        wrap.unwrap(before, b"here")
    assert wrap.unwrap(wrap.wrap(b"new", b"here"), b"here") == b"new"


async def test_derived_secrets_stay_when_wrap_keys_change(wrap: LocalWrap) -> None:
    before = wrap.derive(b"nonces")
    await wrap.rotate()
    assert wrap.derive(b"nonces") == before


async def test_it_shows_no_key_and_cannot_be_pickled(wrap: LocalWrap) -> None:
    assert "<masked>" in repr(wrap)
    with pytest.raises(TypeError):
        pickle.dumps(wrap)
