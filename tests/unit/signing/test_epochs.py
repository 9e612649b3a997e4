"""A key's life in a folder: settling, signing, signing beside the next one, only published, destroyed; or revoked."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from fakes.clock import StandingClock
from stepgrant._keys import verifying_key
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.signing.folder import KeyFolder
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.publishing import Timing

SETTLE, OVERLAP, LIFE = 1_000, 50_000, 20_000
TIMING = Timing(settle_ms=SETTLE, heads_overlap_ms=OVERLAP, life_ms=LIFE)
PATIENT = Timing(settle_ms=3_600_000, heads_overlap_ms=OVERLAP, life_ms=LIFE)


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LocalSigner.open(tmp_path / "keys", create=True)
    return tmp_path / "keys"


@pytest.fixture
def signer(folder: Path, clock: StandingClock) -> LocalSigner:
    return LocalSigner.open(folder, clock=clock, timing=PATIENT)


async def signs(signer: LocalSigner, purpose: str = "grants") -> list[str]:
    """Who signs, each signature verified against what is published."""
    keys = {key.kid: key for key in await signer.public_keys(purpose)}
    made = await signer.sign_all(purpose, b"data")
    for one in made:
        verifying_key(keys[one.kid].jwk).verify(b"data", one.value)
    assert (await signer.sign(purpose, b"data")).kid == made[0].kid
    return [one.kid for one in made]


async def published(signer: LocalSigner, purpose: str = "grants") -> list[str]:
    return [key.kid for key in await signer.public_keys(purpose)]


def private(folder: Path, name: str) -> bool:
    return "d" in json.loads((folder / name).read_text())


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Each file's bytes and mode."""
    return {path.name: (path.read_bytes(), path.stat().st_mode & 0o777) for path in folder.iterdir()}


async def test_a_new_key_is_published_at_once_and_signs_when_it_has_settled(
    signer: LocalSigner, clock: StandingClock
) -> None:
    (old,) = await published(signer)
    new = signer.make("grants")

    assert (new.number, new.signs_from) == (2, clock.now() + PATIENT.settle_ms)
    assert (await signs(signer), await published(signer)) == ([old], [old, new.key.kid])
    clock.tick(PATIENT.settle_ms - 1)
    assert await signs(signer) == [old]
    clock.tick(1)
    assert (await signs(signer), await published(signer)) == ([new.key.kid], [new.key.kid, old])


async def test_a_clock_that_stands_delays_a_key_only_so_long(folder: Path) -> None:
    signer = LocalSigner.open(folder, clock=StandingClock(), timing=Timing(settle_ms=2_000))
    (old,) = await published(signer)
    began = time.monotonic()
    new = signer.make("grants")
    at_once = await signs(signer)
    assert at_once == [old] or time.monotonic() - began >= 2  # a busy machine may have taken that long
    async with asyncio.timeout(30):
        # One question a time: between two of them the other key may begin.
        while (await signer.sign("grants", b"data")).kid == old:  # noqa: ASYNC110 - time passes by itself
            await asyncio.sleep(0.05)

    assert await signs(signer) == [new.key.kid]


async def test_replicas_follow_by_looking_and_not_before(
    folder: Path, signer: LocalSigner, clock: StandingClock
) -> None:
    replica = LocalSigner.open(folder, clock=clock, timing=PATIENT)
    new = signer.make("grants").key.kid
    clock.tick(PATIENT.settle_ms)

    assert new not in await published(replica)
    assert [epoch.number for epoch in await replica.epochs("grants")] == [2, 1]
    assert await signs(replica) == await signs(signer) == [new]


async def test_heads_are_signed_by_both_keys_for_a_while(signer: LocalSigner, clock: StandingClock) -> None:
    """Who knows only the old key follows meanwhile."""
    (old,) = await published(signer, "heads")
    new = signer.make("heads").key.kid
    clock.tick(PATIENT.settle_ms)
    assert await signs(signer, "heads") == [new, old]
    clock.tick(OVERLAP - 1)
    assert await signs(signer, "heads") == [new, old]
    clock.tick(1)
    assert await signs(signer, "heads") == [new]
    clock.tick(100 * LIFE)
    assert await published(signer, "heads") == [new, old]


async def test_a_key_of_tokens_is_published_until_the_last_one_is_over(
    signer: LocalSigner, clock: StandingClock
) -> None:
    (old,) = await published(signer)
    new = signer.make("grants").key.kid
    clock.tick(PATIENT.settle_ms + LIFE - 1)
    assert await published(signer) == [new, old]
    clock.tick(1)
    assert await published(signer) == [new]


async def test_the_private_part_is_destroyed_once_all_replicas_have_followed(folder: Path) -> None:
    clock = StandingClock()
    signer = LocalSigner.open(folder, clock=clock, timing=TIMING)
    (old,), (old_head,) = await published(signer), await published(signer, "heads")
    secret = json.loads((folder / "grants-1.jwk").read_text())["d"].encode()
    with (folder / "grants-1.jwk").open("rb") as before:
        for purpose in ("grants", "heads"):
            signer.make(purpose)
        clock.tick(3 * SETTLE - 1)
        assert signer.destroy_ended() == ()
        clock.tick(1)
        assert signer.destroy_ended() == (old,)
        # What the file was is overwritten, for whoever finds its blocks.
        before.seek(0)
        assert secret not in before.read()

    assert signer.destroy_ended() == ()
    assert [private(folder, f"grants-{number}.jwk") for number in (1, 2)] == [False, True]
    assert not [name for name, (content, _) in contents(folder).items() if secret in content]
    assert {name: mode for name, (_, mode) in contents(folder).items()} == dict.fromkeys(
        ("access-1.jwk", "grants-1.jwk", "grants-2.jwk", "heads-1.jwk", "heads-2.jwk"), 0o600
    )
    assert old in await published(LocalSigner.open(folder, clock=clock, timing=TIMING))
    clock.tick(OVERLAP)
    assert signer.destroy_ended() == (old_head,)
    assert old_head in await published(LocalSigner.open(folder, clock=clock, timing=TIMING), "heads")


async def test_keys_of_unknown_age_are_not_destroyed(folder: Path, clock: StandingClock) -> None:
    """Somebody put a second key there by hand: nobody knows since when replicas have it."""
    KeyFolder(folder).add("grants", "jwk", (folder / "access-1.jwk").read_bytes())
    signer = LocalSigner.open(folder, clock=clock, timing=TIMING)
    clock.tick(10 * OVERLAP)

    assert signer.destroy_ended() == ()
    assert len(await published(signer)) == 2


async def test_a_withdrawn_key_neither_signs_nor_is_it_published_and_is_destroyed(
    folder: Path, signer: LocalSigner
) -> None:
    (old,) = await published(signer)
    new = signer.make("grants").key.kid
    signer.withdraw([old])

    assert (await signs(signer), await published(signer)) == ([new], [new])
    assert signer.destroy_ended() == (old,)
    assert [private(folder, f"grants-{number}.jwk") for number in (1, 2)] == [False, True]


async def test_without_a_key_that_may_sign_nothing_is_signed(signer: LocalSigner) -> None:
    (old,) = await published(signer)
    signer.withdraw([old])
    for call in (signer.sign, signer.sign_all):
        with pytest.raises(SignerUnavailable, match="`stepgrant keys rotate grants`"):
            await call("grants", b"data")
    assert await published(signer) == []
    assert signer.make("grants", at_once=True).key.kid in await signs(signer)


async def test_a_key_made_at_once_signs_at_once(signer: LocalSigner, clock: StandingClock) -> None:
    new = signer.make("grants", at_once=True)
    assert new.signs_from == clock.now()
    assert await signs(signer) == [new.key.kid]


async def test_what_is_wrong_with_the_folder_stops_nothing_that_runs(folder: Path, signer: LocalSigner) -> None:
    before = await signs(signer)
    (folder / "grants-1.jwk").chmod(0o644)
    with pytest.raises(SignerUnavailable, match="can be read by others"):
        await signer.epochs("grants")
    assert await signs(signer) == before
    (folder / "grants-1.jwk").chmod(0o600)
    assert len(await signer.epochs("grants")) == 1


def test_a_key_is_never_replaced_by_a_new_one(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    both = KeyFolder(folder)
    assert both._numbers("grants", "jwk") == [1]
    assert both.add("grants", "jwk", b"two") == 2
    assert not both._write("grants-2.jwk", b"other")
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert (folder / "grants-2.jwk").read_bytes() == b"two"
    with pytest.raises(SignerUnavailable, match="there is no witness key"):
        both.add("witness", "jwk", b"one")


@pytest.mark.parametrize("signs_from", [-1, "soon", True, 1.5, None])
def test_a_time_that_is_none_is_damage(folder: Path, signs_from: object) -> None:
    path = folder / "grants-1.jwk"
    path.write_text(json.dumps({**json.loads(path.read_text()), "signs_from": signs_from}))
    with pytest.raises(SignerUnavailable, match="is damaged"):
        LocalSigner.open(folder)
