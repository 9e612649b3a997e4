"""Signing keys: the registry first, then each tenant's chain, which hears only of what the signer itself has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fakes.hand import Hand
from stepgrant import canonical
from stepgrant_broker.domain.errors import NotFound
from stepgrant_broker.domain.journal import BROKER, By
from stepgrant_broker.domain.keys import PURPOSES, SigningKey
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.usecases.keys import enter, named, register, revoke

PERSON = By("person", "local administrator")


@pytest.fixture
def signer(broker: Hand) -> LocalSigner:
    found = broker.ports.signer
    assert isinstance(found, LocalSigner)
    return found


async def registered(broker: Hand, signer: LocalSigner) -> tuple[SigningKey, ...]:
    return await register(broker.store, signer, broker.clock.now())


async def heard(broker: Hand, tenant: str = "acme") -> list[dict[str, Any]]:
    """What a tenant's chain says of keys, with type and author of each entry."""
    found: list[Any] = [canonical.loads(data) for data in await broker.store.key_entries(tenant)]
    return [{"type": one["type"], "by": one["by"]["kind"], **one["body"]} for one in found]


async def test_the_first_key_of_each_purpose_is_of_the_beginning_and_later_ones_say_when(
    broker: Hand, signer: LocalSigner
) -> None:
    first = await registered(broker, signer)
    assert sorted(one.purpose for one in first) == sorted(PURPOSES)
    assert {(one.number, one.since, one.signs_from) for one in first} == {(1, broker.clock.now(), 0)}
    commits = broker.store.log_commits
    broker.clock.tick(5_000)
    assert await registered(broker, signer) == first
    assert broker.store.log_commits == commits, "nothing new, nothing written"

    made = signer.make("grants")
    both = [one for one in await registered(broker, signer) if one.purpose == "grants"]
    assert [(one.kid, one.since, one.signs_from, one.until) for one in both] == [
        (both[0].kid, broker.clock.now() - 5_000, 0, made.signs_from),
        (made.key.kid, broker.clock.now(), made.signs_from, None),
    ]


async def test_a_file_of_the_beginning_that_comes_later_signs_from_when_it_was_seen(
    broker: Hand, signer: LocalSigner
) -> None:
    """It says no time itself, and only the first keys of all need no entry."""
    found = (await signer.epochs("heads"))[0]
    await broker.store.key_seen(SigningKey("heads", "older", 0, dict(found.key.jwk), 1, 0))
    later = named(await registered(broker, signer), found.key.kid)
    assert (later.number, later.signs_from) == (1, broker.clock.now())


async def test_of_two_that_nobody_saw_the_oldest_is_of_the_beginning(broker: Hand, signer: LocalSigner) -> None:
    made = signer.make("access")
    found = [one for one in await registered(broker, signer) if one.purpose == "access"]
    assert [(one.number, one.signs_from) for one in found] == [(1, 0), (2, made.signs_from)]


async def test_a_chain_hears_once_of_what_came_and_what_was_revoked_in_the_order_of_time(
    broker: Hand, signer: LocalSigner
) -> None:
    first = named(await registered(broker, signer), (await signer.epochs("grants"))[0].key.kid)
    broker.clock.tick(1_000)
    made = signer.make("grants")
    new = named(await registered(broker, signer), made.key.kid)
    broker.clock.tick(1_000)
    gone = await revoke(broker.store, first.kid, broker.clock.now(), 40)
    assert (gone.kid, gone.revoked_at, gone.revoked_size) == (first.kid, broker.clock.now(), 40)
    own, notes = {made.key.kid}, {first.kid: "a laptop was stolen", new.kid: "of no revocation"}

    assert await enter(broker.ports, broker.store, "acme", own, by=PERSON, notes=notes) == 2
    rotated, revoked = await heard(broker)
    note_c = revoked.pop("note_c")
    assert revoked == {
        "type": "key_revoked", "by": "person", "purpose": "grants", "kid": first.kid, "at": gone.revoked_at, "size": 40,
    }  # fmt: skip
    assert rotated == {
        "type": "key_rotated", "by": "person", "purpose": "grants", "kid": new.kid, "number": 2, "jwk": dict(new.jwk),
        "since": new.since, "signs_from": new.signs_from, "previous": first.kid,
    }  # fmt: skip
    (note,) = (await broker.ports.reads.payloads("acme", "", [note_c])).values()
    assert (note.field, note.body) == ("key.note", b'"a laptop was stolen"')

    commits = broker.store.commits
    assert await enter(broker.ports, broker.store, "acme", own, by=BROKER) == 0
    assert broker.store.commits == commits
    assert len(await heard(broker)) == 2


async def test_a_key_that_the_signer_has_not_is_vouched_for_by_nobody_but_its_end_is_told(
    broker: Hand, signer: LocalSigner
) -> None:
    """Who writes into the database puts a row there; a key of ours that is gone from the folder looks the same."""
    known = (await registered(broker, signer))[0]
    stranger = replace(known, kid="stranger", number=9, signs_from=broker.clock.now())
    await broker.store.key_seen(stranger)
    own = [one.kid for one in await broker.store.signing_keys() if one.kid != "stranger"]
    assert await enter(broker.ports, broker.store, "acme", own) == 0
    assert await heard(broker) == []
    await revoke(broker.store, "stranger", broker.clock.now(), 3)
    assert await enter(broker.ports, broker.store, "acme", own) == 1
    assert [(one["type"], one["kid"], one["by"], one["size"]) for one in await heard(broker)] == [
        ("key_revoked", "stranger", "broker", 3)
    ]


async def test_a_tenant_may_begin_with_it(broker: Hand, signer: LocalSigner) -> None:
    await registered(broker, signer)
    made = signer.make("heads")
    await registered(broker, signer)
    assert await enter(broker.ports, broker.store, "newcomer", {made.key.kid}) == 1
    assert [one["kid"] for one in await heard(broker, "newcomer")] == [made.key.kid]
    assert await heard(broker) == [], "each tenant by itself"


async def test_revoking_is_final_and_nobodys_key_is_not_found(broker: Hand, signer: LocalSigner) -> None:
    known = (await registered(broker, signer))[0]
    gone = await revoke(broker.store, known.kid, broker.clock.now(), 7)
    assert await revoke(broker.store, known.kid, broker.clock.now() + 1, 8) == gone
    before = await broker.store.signing_keys()
    with pytest.raises(NotFound, match="there is no signing key 'nobody'") as missing:
        await revoke(broker.store, "nobody", broker.clock.now(), 7)
    assert missing.value.field == "kid"
    assert await broker.store.signing_keys() == before
