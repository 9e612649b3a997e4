"""Everything that rests comes under the newest wrap key, and what rests in clear is sealed: on every store the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from conformance.store.adapters import AnyStore, Database
from conformance.store.making import NOW, Chain, SetClock, a_payload
from conformance.store.test_sealing import ENDED, MARK, WRAP, bytes_in, key_of
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.ports import SecretRecord, Wrapped
from stepgrant_broker.domain.writes import ChainKey, Tenant
from stepgrant_broker.signing.wrap import LocalWrap, WrapError
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.usecases.rewrap import Rewrapped, rewrap

OLD: Final = LocalWrap([b"o" * 32], b"r" * 32)
BOTH: Final = LocalWrap([b"n" * 32, b"o" * 32], b"r" * 32)
NEW: Final = LocalWrap([b"n" * 32], b"r" * 32)
RUNS: Final = 5


@pytest.fixture
async def store(database: Database, clock: SetClock) -> AsyncIterator[AnyStore]:
    opened = database.open(clock, seal=Seal(BOTH))
    yield opened
    await opened.close()


async def before(store: AnyStore) -> list[Chain]:
    """Runs, one of them erased, and secrets, one of them removed; all under the old key."""
    chains = [Chain.of_run() for _ in range(RUNS)]
    for chain in chains:
        key = key_of("acme", str(chain.run), OLD)
        await store.commit(chain.adds(1, rows=(key,), payloads=(a_payload(MARK, c=f"c-{chain.run}"),)))
    await store.commit(chains[-1].adds(1, change=ENDED, destroy=True))
    tenant = Chain("acme", Tenant("acme", 0, GENESIS, 0))
    kept = SecretRecord(
        "acme", "mail", ("h",), "Authorization", OLD.wrap(b"pw", aad.static_secret("acme", "mail")), NOW
    )
    gone = SecretRecord("acme", "gone", ("h",), "Authorization", Wrapped(OLD.key_id, b"", b""), NOW, NOW)
    await store.commit(tenant.adds(1, rows=(kept, gone, key_of("acme", "", OLD))))
    return chains


async def test_all_of_it_and_only_once(store: AnyStore, database: Database, clock: SetClock) -> None:
    chains = await before(store)
    assert await rewrap(store, BOTH) == Rewrapped(RUNS, 1, 0, 0), "RUNS - 1 runs and the tenant"
    assert await rewrap(store, BOTH) == Rewrapped(0, 0, 0, 0)
    alone = database.open(clock, seal=Seal(NEW))
    try:
        for chain in chains[:-1]:
            (found,) = (await alone.payloads("acme", str(chain.run), [f"c-{chain.run}"])).values()
            assert found.body == MARK
        assert await alone.chain_key("acme", str(chains[-1].run)) is None, "what was erased stays so"
        secret = await alone.secret("acme", "mail")
        assert secret is not None
        assert NEW.unwrap(secret.wrapped, aad.static_secret("acme", "mail")) == b"pw"
        with pytest.raises(WrapError):
            OLD.unwrap(secret.wrapped, aad.static_secret("acme", "mail"))
    finally:
        await alone.close()


async def test_it_goes_on_after_a_crash(store: AnyStore, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of two; the third one never comes back the first time."""
    monkeypatch.setattr("stepgrant_broker.usecases.rewrap.BATCH", 2)
    await before(store)
    real, left = type(store).rewrap, iter([True, True])

    async def stops(self: AnyStore, pairs: Sequence[tuple[ChainKey | SecretRecord, Wrapped]]) -> int:
        if not next(left, False):
            raise ConnectionResetError
        return await real(self, pairs)

    monkeypatch.setattr(type(store), "rewrap", stops)
    with pytest.raises(ConnectionResetError):
        await rewrap(store, BOTH)
    monkeypatch.setattr(type(store), "rewrap", real)
    assert await rewrap(store, BOTH) == Rewrapped(RUNS - 4, 1, 0, 0)
    assert {row[2] for row in database.snapshot()["chain_keys"]} == {BOTH.key_id, "erased------------"}


async def test_an_erasure_in_between_wins(store: AnyStore) -> None:
    chains = await before(store)
    mine = str(chains[0].run)
    found = await store.chain_keys_under_others(BOTH.key_id, ("", ""), 100)
    await store.commit(chains[0].adds(1, change=ENDED, destroy=True))
    pairs = [(key, BOTH.wrap(b"x" * 32, aad.chain_key(key.tenant, key.run))) for key in found]
    assert await store.rewrap(pairs) == len(pairs) - 1
    assert await store.chain_key("acme", mine) is None


async def test_what_rests_in_clear_is_sealed(database: Database, clock: SetClock) -> None:
    """Rows of before; those of a chain without a key are left alone. Nothing stays in the file."""
    plain, chain, keyless = database.open(clock), Chain.of_run(), Chain.of_run()
    payloads = [a_payload(MARK + str(number).encode()) for number in range(7)]
    key = key_of("acme", str(chain.run))
    await plain.commit(chain.adds(1, rows=(key,), payloads=payloads))
    await plain.commit(keyless.adds(1, payloads=(a_payload(b'"no key"'),)))
    await plain.close()
    store = database.open(clock, seal=Seal(WRAP))
    try:
        assert MARK in bytes_in(database)
        done = await rewrap(store, WRAP)
        assert done == Rewrapped(0, 0, len(payloads), 0)
        assert MARK not in bytes_in(database)
        found = await store.payloads("acme", str(chain.run), [payload.c for payload in payloads])
        assert list(found.values()) == payloads
        if database.adapter == "sqlite":
            folder = Path(database.location).parent
            assert not any(MARK in file.read_bytes() for file in folder.iterdir())
    finally:
        await store.close()
