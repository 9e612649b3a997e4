"""The registry of signing keys: who comes first is right, what is closed stays closed, and its entries are found."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from conformance.store.adapters import AnyStore
from conformance.store.making import NOW, Chain, unique
from stepgrant import canonical
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.keys import SigningKey

ROTATED = {"purpose": "heads", "number": 2, "jwk": {}, "since": 1, "signs_from": 2}
REVOKED = {"purpose": "heads", "at": 3, "size": 4}


def a_key(number: int = 1, purpose: str = "grants", **more: object) -> SigningKey:
    made = SigningKey(purpose, unique("kid"), number, {"kty": "EC", "x": "x"}, NOW + number, NOW + 10 * number)
    return replace(made, **more)  # type: ignore[arg-type] # fields by name


async def test_keys_are_listed_by_purpose_and_number(store: AnyStore) -> None:
    keys = [a_key(2, "heads"), a_key(10), a_key(1, "heads"), a_key(9)]
    for key in keys:
        await store.key_seen(key)

    found = await store.signing_keys()
    assert [(one.purpose, one.number) for one in found] == [("grants", 9), ("grants", 10), ("heads", 1), ("heads", 2)]
    assert {one.kid: one.jwk for one in found} == {one.kid: one.jwk for one in keys}


async def test_a_newer_key_ends_the_older_ones_of_its_purpose_once(store: AnyStore) -> None:
    first, other, second, third = a_key(1), a_key(1, "heads"), a_key(2), a_key(3)
    for key in (first, other, second, third, replace(third, signs_from=1)):
        await store.key_seen(key)

    ends = {one.kid: one.until for one in await store.signing_keys()}
    assert ends == {first.kid: second.signs_from, second.kid: third.signs_from, third.kid: None, other.kid: None}


async def test_a_key_that_is_there_stays_as_it_is(store: AnyStore) -> None:
    key = a_key()
    await store.key_seen(key)
    await store.key_seen(replace(key, number=7, since=0, signs_from=0, jwk={"kty": "another"}))

    assert await store.signing_keys() == (key,)


async def test_a_key_is_revoked_once(store: AnyStore) -> None:
    key, other = a_key(), a_key(2)
    await store.key_seen(key)
    await store.key_seen(other)
    answers = await asyncio.gather(*(store.key_revoked("grants", key.kid, NOW + at, at) for at in range(1, 6)))

    assert sorted(answers) == [False] * 4 + [True]
    assert not await store.key_revoked("grants", unique("kid"), NOW, 1)
    assert not await store.key_revoked("heads", other.kid, NOW, 1)
    first, second = await store.signing_keys()
    assert first.revoked_size is not None
    assert first.revoked_at == NOW + first.revoked_size
    assert (second.revoked_at, second.revoked_size) == (None, None)


async def test_nothing_of_it_is_counted_with_the_calls_of_agents(store: AnyStore) -> None:
    before, apart = store.commits, store.log_commits
    await store.key_seen(a_key())

    assert (store.commits - before, store.log_commits - apart) == (0, 1)


@pytest.mark.parametrize("tenants", [("acme", "globex")])
async def test_entries_about_keys_are_found_among_all_others(store: AnyStore, tenants: tuple[str, str]) -> None:
    for tenant in tenants:
        chain = Chain.of_tenant(tenant)
        await store.commit(chain.adds(3))
        for kid in ("k2", "k3"):
            await store.commit(chain.adds(of=(EntryType.KEY_ROTATED, {**ROTATED, "kid": f"{tenant} {kid}"})))
            await store.commit(chain.adds(2))
        await store.commit(chain.adds(of=(EntryType.KEY_REVOKED, {**REVOKED, "kid": f"{tenant} k2"})))

    found = [canonical.loads(data) for data in await store.key_entries("globex")]
    assert [(one["type"], one["body"]["kid"]) for one in found] == [  # type: ignore[index, call-overload] # JSON
        ("key_rotated", "globex k2"),
        ("key_rotated", "globex k3"),
        ("key_revoked", "globex k2"),
    ]
    assert await store.key_entries("nobody") == ()
