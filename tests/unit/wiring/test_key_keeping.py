"""Keys while a broker runs: registered, entered in every chain, revoked, and made good after a crash in between."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fakes.clock import StandingClock
from stepgrant import canonical, tlog
from stepgrant._keys import SecretKey
from stepgrant_broker.config import Settings
from stepgrant_broker.domain.errors import Conflict, NotFound, StoreUnavailable
from stepgrant_broker.domain.keys import SigningKey
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.usecases import keys as usecase
from stepgrant_broker.wiring import Broker, build, opened
from stepgrant_broker.wiring.bootstrap import ensure_tenant
from stepgrant_broker.wiring.seams import Seams

PURPOSES = ["access", "grants", "heads"]


async def heard(broker: Broker, tenant: str = "default") -> list[dict[str, Any]]:
    """What a tenant's chain says of keys, with the type of each entry."""
    found: list[Any] = [canonical.loads(data) for data in await broker.store.key_entries(tenant)]
    return [{"type": one["type"], "by": one["by"]["kind"], **one["body"]} for one in found]


async def key_of(broker: Broker, purpose: str) -> SigningKey:
    """The newest registered key."""
    return [key for key in await broker.store.signing_keys() if key.purpose == purpose][-1]


def private(broker: Broker) -> list[str]:
    """The key files with a private part."""
    return sorted(
        path.name for path in broker.settings.keys_folder.glob("*.jwk") if "d" in json.loads(path.read_text())
    )


async def test_the_first_keys_are_registered_and_need_no_entry(broker: Broker, clock: StandingClock) -> None:
    keys = await broker.store.signing_keys()
    assert [(key.purpose, key.number, key.since, key.signs_from) for key in keys] == [
        (purpose, 1, clock.now(), 0) for purpose in PURPOSES
    ]
    for key in keys:
        assert [dict(one.jwk) for one in await broker.ports.signer.public_keys(key.purpose)] == [key.jwk]
    assert await heard(broker) == []
    assert await broker.keys.round() == 0


async def test_a_rotation_is_entered_in_every_chain_once(broker: Broker, clock: StandingClock) -> None:
    await ensure_tenant(broker, "globex")
    old = await key_of(broker, "grants")
    clock.tick(5_000)
    made = await broker.keys.rotate("grants")
    assert (made.number, made.since, made.signs_from) == (2, clock.now(), clock.now() + 60_000)
    expected = {
        "type": "key_rotated", "by": "person", "purpose": "grants", "kid": made.kid, "number": 2, "jwk": made.jwk,
        "since": made.since, "signs_from": made.signs_from, "previous": old.kid,
    }  # fmt: skip
    assert await heard(broker) == await heard(broker, "globex") == [expected]
    assert (await broker.store.signing_keys())[1].until == made.signs_from
    assert [await broker.keys.round() for _ in range(2)] == [0, 0]
    assert [str(one) async for one in broker.ledger_check().findings()] == []


async def test_a_key_that_settles_is_not_passed_over(broker: Broker, clock: StandingClock) -> None:
    await broker.keys.rotate("heads")
    with pytest.raises(Conflict, match="settling and signs in 60 s"):
        await broker.keys.rotate("heads")
    assert len(await broker.store.signing_keys()) == 4
    clock.tick(60_000)
    assert (await broker.keys.rotate("heads")).number == 3
    with pytest.raises(NotFound, match="grants, access, heads"):
        await broker.keys.rotate("wishes")


async def test_what_a_crash_left_is_made_good_at_the_next_start(settings: Settings, clock: StandingClock) -> None:
    async with build(settings, create=True, seams=Seams(clock=clock)) as first:
        # As if it had died after the registry, and before the first entry.
        signer = first.ports.signer
        assert isinstance(signer, LocalSigner)
        signer.make("grants")
        await usecase.register(first.store, signer, clock.now())
        await first.store.key_revoked("heads", (await key_of(first, "heads")).kid, clock.now(), 7)
        assert await heard(first) == []
    async with build(settings, seams=Seams(clock=clock)) as second:
        assert [(one["type"], one["purpose"], one["by"]) for one in await heard(second)] == [
            ("key_rotated", "grants", "broker"),
            ("key_revoked", "heads", "broker"),
        ]
        assert private(second) == ["access-1.jwk", "grants-1.jwk", "grants-2.jwk"]


async def test_a_tenant_that_comes_later_hears_of_it_all(settings: Settings, clock: StandingClock) -> None:
    async with build(settings, create=True, seams=Seams(clock=clock)) as first:
        await first.keys.rotate("access")
        await ensure_tenant(first, "globex")
        assert await heard(first, "globex") == []
    async with build(settings, seams=Seams(clock=clock)) as second:
        assert await heard(second, "globex") == [{**one, "by": "broker"} for one in await heard(second)]


async def test_a_revoked_key_is_replaced_first_and_destroyed(broker: Broker, clock: StandingClock) -> None:
    old = await key_of(broker, "grants")
    clock.tick(1_000)
    gone = await broker.keys.revoke(old.kid, "a laptop was stolen")
    new = await key_of(broker, "grants")

    assert (gone.kid, gone.revoked_at) == (old.kid, clock.now())
    assert (await broker.ports.signer.sign("grants", b"data")).kid == new.kid != old.kid
    assert [key.kid for key in await broker.ports.signer.public_keys("grants")] == [new.kid]
    assert private(broker) == ["access-1.jwk", "grants-2.jwk", "heads-1.jwk"]
    rotated, revoked = await heard(broker)
    assert (rotated["type"], rotated["kid"], rotated["signs_from"]) == ("key_rotated", new.kid, clock.now())
    note_c = revoked.pop("note_c")
    assert revoked == {
        "type": "key_revoked", "by": "person", "purpose": "grants", "kid": old.kid, "at": clock.now(),
        "size": gone.revoked_size,
    }  # fmt: skip
    (note,) = (await broker.ports.reads.payloads("default", "", [note_c])).values()
    assert note.field == "key.note"
    again = await broker.keys.revoke(old.kid)
    assert again == gone
    assert len(await heard(broker)) == 2
    with pytest.raises(NotFound, match="there is no signing key"):
        await broker.keys.revoke("nobody")


async def test_heads_count_up_to_the_size_of_the_log_at_the_time(broker: Broker) -> None:
    await broker.log.catch_up()
    head = await broker.store.log_published()
    assert head is not None
    gone = await broker.keys.revoke((await key_of(broker, "heads")).kid)
    assert gone.revoked_size is not None
    assert gone.revoked_size >= head.size > 0
    await broker.log.catch_up()
    newest = await broker.store.log_published()
    assert newest is not None
    assert newest.size > gone.revoked_size


async def test_a_command_beside_a_running_broker_reaches_it_within_a_round(
    settings: Settings, clock: StandingClock
) -> None:
    async with build(settings, create=True, seams=Seams(clock=clock)) as running:
        old = await key_of(running, "access")
        async with opened(settings) as beside:
            await beside.keys.revoke(old.kid)
        await running.keys.round()
        kids = [key.kid for key in await running.ports.signer.public_keys("access")]
        assert kids == [(await key_of(running, "access")).kid] != [old.kid]


async def test_what_was_revoked_signs_nothing_from_the_first_moment_on(
    settings: Settings, clock: StandingClock
) -> None:
    """Also when the key file comes back out of a backup."""
    async with build(settings, create=True, seams=Seams(clock=clock)) as first:
        file = settings.keys_folder / "heads-1.jwk"
        content = file.read_bytes()
        old = await key_of(first, "heads")
        await first.keys.revoke(old.kid)
        assert "d" not in json.loads(file.read_bytes())
    file.write_bytes(content)
    async with opened(settings) as second:
        assert (await second.ports.signer.sign("heads", b"data")).kid == (await key_of(second, "heads")).kid != old.kid
        await second.keys.round()
    assert "d" not in json.loads(file.read_bytes())


async def findings(broker: Broker) -> list[str]:
    return [str(one) async for one in broker.ledger_check().findings()]


async def test_a_head_by_a_revoked_key_is_signed_again_and_its_older_ones_hold(broker: Broker) -> None:
    await broker.log.catch_up()
    before = broker.log.counted
    assert before is not None
    (old,) = await broker.ports.signer.public_keys("heads")
    # No chain tells anybody of it, so nothing comes after that head.
    signer = broker.ports.signer
    assert isinstance(signer, LocalSigner)
    signer.make("heads", at_once=True)
    signer.withdraw([old.kid])
    await broker.log.catch_up()
    after = broker.log.counted
    assert after is not None
    assert (after.size, after.root) == (before.size, before.root)
    new, _ = tlog.read_note(after.note).signatures
    assert tlog.read_note(after.note).signatures[1:] == tlog.read_note(before.note).signatures
    assert [key.split("+")[1] for key in await broker.log.vkeys()] == [new.key_id.hex()]
    await broker.log.catch_up()
    assert broker.log.counted == after


async def test_what_was_changed_in_the_registry_is_found(broker: Broker, clock: StandingClock) -> None:
    await broker.log.catch_up()
    first = await key_of(broker, "heads")
    await broker.keys.revoke(first.kid)
    await broker.log.catch_up()
    assert await findings(broker) == []
    known = await key_of(broker, "access")
    stranger = SecretKey.generate("EdDSA").public
    forged = replace(known, purpose="heads", kid=stranger.jkt, jwk=stranger.jwk, number=9, signs_from=clock.now())
    await broker.store.key_seen(forged)
    assert await broker.keys.round() == 0  # It is none of the signer's: no chain gets it told.
    found = sorted(await findings(broker))
    assert [one.partition(":")[0] for one in found] == ["row_differs", "row_orphan"]
    assert stranger.jkt in found[1]
    with pytest.raises(StoreUnavailable, match="the registry of signing keys was changed"):
        await broker.keys.attested()
