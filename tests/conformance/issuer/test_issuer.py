"""One suite for the port `Issuer`, run over every adapter of `adapters.py`."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.issuer.adapters import ADAPTERS, PARAMS, Adapter
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import Issuer, Minted, Revocation


@pytest.fixture(params=PARAMS)
async def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Adapter]:
    async with ADAPTERS[request.param](request, tmp_path) as made:
        yield made


async def mint(adapter: Adapter) -> Minted:
    handle = await adapter.issuer.intend(adapter.order)
    return await adapter.issuer.mint(adapter.order, handle)


def test_it_declares_what_it_is(adapter: Adapter) -> None:
    issuer: Issuer = adapter.issuer
    assert issuer.name
    assert issuer.revocation in Revocation
    assert 1 <= issuer.max_ttl_s <= 300
    assert not (issuer.tokens_of_ours and issuer.outside)


async def test_only_an_outside_issuer_has_a_handle(adapter: Adapter) -> None:
    assert (await adapter.issuer.intend(adapter.order) is not None) is adapter.issuer.outside


async def test_what_it_mints_passes_its_own_check(adapter: Adapter) -> None:
    minted = await mint(adapter)
    adapter.issuer.check(adapter.order, minted)
    assert minted.fields
    assert all(minted.fields.values())
    assert adapter.order.issued_at < minted.expires_at <= adapter.order.expires_at


async def test_it_says_where_the_credential_may_go(adapter: Adapter) -> None:
    assert (await mint(adapter)).hosts


async def test_a_credential_is_masked_and_cannot_be_pickled_or_copied(adapter: Adapter) -> None:
    minted = await mint(adapter)
    for secret in minted.fields.values():
        assert secret not in repr(minted)
        assert secret not in str(minted)
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            take(minted)


async def test_a_longer_life_than_ordered_is_refused(adapter: Adapter) -> None:
    minted = await mint(adapter)
    longer = replace(minted, expires_at=adapter.order.expires_at + 1000)
    with pytest.raises(IssuerRefused):
        adapter.issuer.check(adapter.order, longer)


async def test_a_longer_order_than_its_maximum_gives_nothing(adapter: Adapter) -> None:
    order = adapter.ordered(expires_at=adapter.order.issued_at + 1000 * adapter.issuer.max_ttl_s + 1000)
    with pytest.raises(IssuerRefused):
        adapter.issuer.check(order, await adapter.issuer.mint(order, await adapter.issuer.intend(order)))


@pytest.mark.parametrize("change", ["no fields", "another field", "an empty field", "no hosts"])
async def test_another_shape_than_ordered_is_refused(adapter: Adapter, change: str) -> None:
    minted = await mint(adapter)
    first = next(iter(minted.fields))
    changed = {
        "no fields": replace(minted, fields={}),
        "another field": replace(minted, fields={**minted.fields, "more": "x"}),
        "an empty field": replace(minted, fields={**minted.fields, first: ""}),
        "no hosts": replace(minted, hosts=()),
    }[change]
    with pytest.raises(IssuerRefused):
        adapter.issuer.check(adapter.order, changed)


async def test_only_confirmed_death_is_called_so(adapter: Adapter) -> None:
    order = adapter.order
    confirmed = await adapter.issuer.revoke(
        tenant=order.tenant, jti=order.jti, handle=None, lease=None, now=order.issued_at
    )
    assert confirmed is (adapter.issuer.revocation is Revocation.CONFIRMED)


async def test_a_broken_backend_is_unavailable_and_tells_no_secret(adapter: Adapter) -> None:
    with pytest.raises(IssuerUnavailable) as caught:
        await adapter.broken.mint(adapter.order, None)
    assert caught.value.code == "issuer_unavailable"
    if adapter.secret is not None:
        assert adapter.secret not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


# What an issuer with side effects owes besides. For the others it holds trivially.


async def test_a_handle_mints_at_most_once(adapter: Adapter) -> None:
    handle = await adapter.issuer.intend(adapter.order)
    await adapter.issuer.mint(adapter.order, handle)
    if adapter.issuer.outside:
        with pytest.raises(IssuerUnavailable):
            await adapter.issuer.mint(adapter.order, handle)


async def test_a_handle_is_for_its_own_grant(adapter: Adapter) -> None:
    handle = await adapter.issuer.intend(adapter.order)
    if adapter.issuer.outside:
        with pytest.raises(IssuerUnavailable):
            await adapter.issuer.mint(adapter.ordered(jti="grn_02"), handle)


async def test_what_was_only_intended_can_be_taken_back(adapter: Adapter) -> None:
    order = adapter.order
    handle = await adapter.issuer.intend(order)
    dead = await adapter.issuer.revoke(
        tenant=order.tenant, jti=order.jti, handle=handle, lease=None, now=order.issued_at
    )
    assert dead is (adapter.issuer.revocation is Revocation.CONFIRMED)
    if adapter.issuer.outside and adapter.issuer.revocation is not Revocation.NONE:
        with pytest.raises(IssuerUnavailable):
            await adapter.issuer.mint(order, handle)


@pytest.mark.parametrize("known", ["handle and lease", "lease", "handle"])
async def test_confirmed_means_that_it_works_no_more(adapter: Adapter, known: str) -> None:
    if adapter.works is None:
        return
    order = adapter.order
    handle = await adapter.issuer.intend(order)
    minted = await adapter.issuer.mint(order, handle)
    assert await adapter.works(minted)
    named = {"handle": handle if "handle" in known else None, "lease": minted.lease if "lease" in known else None}
    for _ in range(2):
        assert await adapter.issuer.revoke(tenant=order.tenant, jti=order.jti, **named, now=order.issued_at)
        assert not await adapter.works(minted)
