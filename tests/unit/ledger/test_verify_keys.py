"""`ledger verify` and first keys, which no entry tells of: who stands for them, and what is said without anybody."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.hand import Hand, hand
from stepgrant._keys import SecretKey
from stepgrant_broker.domain.keys import PURPOSES, KeyEpoch, SigningKey
from stepgrant_broker.ledger import check_keys
from stepgrant_broker.ledger.findings import Code
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.publishing import published
from stepgrant_broker.usecases.keys import enter, register


@dataclass
class Registry:
    """A broker's registry with its signer."""

    held: Hand
    signer: LocalSigner
    folder: Path

    async def registered(self) -> dict[str, list[SigningKey]]:
        """The rows by purpose."""
        rows = await register(self.held.store, self.signer, self.held.clock.now())
        return {purpose: [one for one in rows if one.purpose == purpose] for purpose in PURPOSES}

    async def rotate(self, purpose: str) -> SigningKey:
        """A newer key, registered and entered."""
        self.held.clock.tick(1000)
        made = self.signer.make(purpose, at_once=True)
        await self.registered()
        await enter(self.held.ports, self.held.store, "acme", [made.key.kid])
        return (await self.registered())[purpose][-1]

    async def plant(self, purpose: str, number: int) -> str:
        """A first key of somebody's own; its id."""
        key = published(SecretKey.generate("EdDSA" if purpose == "heads" else "ES256").public)
        await self.held.store.key_seen(SigningKey(purpose, key.kid, number, dict(key.jwk), 1, 0))
        return key.kid

    async def findings(self, *, asked: bool = True) -> list[tuple[Code, object, object]]:
        """What a check finds; with `asked`, the signer is."""
        signer = LocalSigner.open(self.folder) if asked else None
        check = LedgerCheck(self.held.store, self.held.store, signer=signer)
        return [(one.code, one.at["purpose"], one.at["kid"]) async for one in check.findings()]


@pytest.fixture
async def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Registry]:
    monkeypatch.setattr(check_keys, "PAUSE_S", 0)
    async with hand(tmp_path) as held:
        keys = tmp_path / "keys"
        yield Registry(held, LocalSigner.open(keys, clock=held.clock), keys)


@pytest.mark.parametrize("asked", [True, False])
async def test_a_registry_through_its_life_holds(registry: Registry, *, asked: bool) -> None:
    assert await registry.findings(asked=asked) == []  # before a broker ever ran
    await registry.registered()
    assert await registry.findings(asked=asked) == []
    for purpose in ("heads", "heads", "grants"):
        await registry.rotate(purpose)
        assert await registry.findings(asked=asked) == []


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_the_signer_tells_a_planted_first_key_from_the_true_one(registry: Registry, number: int) -> None:
    await registry.registered()
    kid = await registry.plant("heads", number)
    assert (Code.ROW_ORPHAN, "heads", kid) in await registry.findings()


async def test_a_first_key_that_is_the_only_row_must_be_the_signers(registry: Registry) -> None:
    kid = await registry.plant("heads", 1)
    assert (Code.ROW_ORPHAN, "heads", kid) in await registry.findings()


async def test_the_entry_of_the_key_after_it_stands_for_a_first_key_that_the_signer_does_not_show_any_more(
    registry: Registry,
) -> None:
    """As with Vault, once `min_decryption_version` was raised."""
    await registry.registered()
    await registry.rotate("heads")
    (registry.folder / "heads-1.jwk").unlink()
    assert await registry.findings() == []
    kid = await registry.plant("heads", 0)
    assert await registry.findings() == [(Code.ROW_ORPHAN, "heads", kid)]


async def test_without_the_signer_the_entry_alone_tells_them_apart(registry: Registry) -> None:
    await registry.registered()
    await registry.rotate("access")
    kid = await registry.plant("access", 0)
    assert await registry.findings(asked=False) == [(Code.ROW_ORPHAN, "access", kid)]


async def test_a_revocation_speaks_of_a_key_that_has_to_be_there(registry: Registry) -> None:
    """With its row the revocation would be forgotten, and the key would be published again."""
    first = (await registry.registered())["grants"][0]
    await registry.held.store.key_revoked("grants", first.kid, registry.held.clock.now(), 0)
    await enter(registry.held.ports, registry.held.store, "acme", [first.kid])
    assert await registry.findings(asked=False) == []
    with closing(sqlite3.connect(registry.folder.parent / "store" / "stepgrant.db")) as db:
        db.execute("DELETE FROM signing_keys WHERE kid = ?", (first.kid,))
        db.commit()
    assert await registry.findings(asked=False) == [(Code.ROW_MISSING, "grants", first.kid)]
    assert await registry.findings() == [(Code.ROW_MISSING, "grants", first.kid)]


async def test_with_nobody_to_ask_both_are_named(registry: Registry) -> None:
    first = (await registry.registered())["grants"][0]
    kid = await registry.plant("grants", 1)
    found = await registry.findings(asked=False)
    assert sorted(found, key=str) == sorted(
        [(Code.ROW_ORPHAN, "grants", kid), (Code.ROW_ORPHAN, "grants", first.kid)], key=str
    )


async def test_a_key_that_was_made_a_moment_ago_is_not_missed(registry: Registry) -> None:
    await registry.registered()
    made = registry.signer.make("grants")
    assert await registry.findings() == []
    await registry.registered()
    assert (Code.ROW_ORPHAN, "grants", made.key.kid) in await registry.findings()  # no chain has heard of it yet
    await enter(registry.held.ports, registry.held.store, "acme", [made.key.kid])
    assert await registry.findings() == []


async def test_what_is_about_to_be_entered_is_looked_at_again(registry: Registry) -> None:
    """Who registers a key enters it a moment later: here between the two looks."""

    class Looked(LocalSigner):
        looks = 0

        async def epochs(self, purpose: str) -> tuple[KeyEpoch, ...]:
            Looked.looks += purpose == "grants"
            if Looked.looks == 2:
                await enter(registry.held.ports, registry.held.store, "acme", [made.key.kid])
            return await super().epochs(purpose)

    await registry.registered()
    made = registry.signer.make("grants")
    await registry.registered()
    check = LedgerCheck(registry.held.store, registry.held.store, signer=Looked.open(registry.folder))
    assert [one async for one in check.findings()] == []
    assert Looked.looks == 2


async def test_a_signer_that_does_not_answer_is_a_finding_and_all_else_is_checked(registry: Registry) -> None:
    await registry.registered()
    signer = LocalSigner.open(registry.folder)
    (registry.folder / "heads-1.jwk").chmod(0o644)
    check = LedgerCheck(registry.held.store, registry.held.store, signer=signer)
    (found,) = [one async for one in check.findings()]
    assert (found.code, found.at) == (Code.UNREADABLE, check_keys.REGISTRY)
    assert str(found).startswith("unreadable: signing_keys: ")
    assert "\n" not in str(found)
