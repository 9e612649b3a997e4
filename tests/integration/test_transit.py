"""Keys in a real Vault: rotation, withdrawal, wrong keys, wrong answers, and Vault being away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from fakes.clock import StandingClock
from stepgrant._keys import verifying_key
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.ports import PublicKey
from stepgrant_broker.signing.publishing import Timing
from vaulted import client, mounted, transit_keys, transit_signer, unique

if TYPE_CHECKING:
    from pathlib import Path

    from stepgrant_broker.signing.transit import TransitSigner
    from stepgrant_services import VaultServer

LONG_S = 3600.0


@pytest.fixture
def mount(vault_server: VaultServer) -> str:
    return mounted(vault_server, "transit")


@pytest.fixture
def names(vault_server: VaultServer, mount: str) -> dict[str, str]:
    return transit_keys(vault_server, mount)


def real_time() -> StandingClock:
    return StandingClock(int(time.time() * 1000))


async def kids(signer: TransitSigner) -> list[str]:
    return [key.kid for key in await signer.public_keys("grants")]


async def test_a_new_version_is_published_at_once_and_signs_later(
    vault_server: VaultServer, mount: str, names: dict[str, str]
) -> None:
    """A resource server that asks another replica must know the key before it meets a signature of it."""
    clock = real_time()
    async with transit_signer(
        vault_server, mount=mount, names=names, clock=clock, refresh_s=0, settle_s=LONG_S
    ) as signer:
        (old,) = await kids(signer)
        vault_server.request("POST", f"{mount}/keys/{names['grants']}/rotate")
        first, new = await kids(signer)
        assert first == old
        assert (await signer.sign("grants", b"data")).kid == old
        clock.tick(int(LONG_S * 1000) + 1000)
        assert (await signer.sign("grants", b"data")).kid == new
        assert await kids(signer) == [new, old]


async def test_a_new_version_signs_in_time_whatever_the_clocks_say(
    vault_server: VaultServer, mount: str, names: dict[str, str]
) -> None:
    clock = StandingClock(0)
    times = {"refresh_s": 0, "settle_s": LONG_S}
    async with transit_signer(vault_server, mount=mount, names=names, clock=clock, **times) as signer:
        (old,) = await kids(signer)
        vault_server.request("POST", f"{mount}/keys/{names['grants']}/rotate")
        new = (await kids(signer))[1]
        assert (await signer.sign("grants", b"data")).kid == old
        signer._known["grants"].seen[2] -= LONG_S  # it was seen so long ago
        assert (await signer.sign("grants", b"data")).kid == new


async def test_a_rotation_is_seen_only_every_so_often(
    vault_server: VaultServer, mount: str, names: dict[str, str]
) -> None:
    async with transit_signer(vault_server, mount=mount, names=names, refresh_s=LONG_S) as signer:
        before = await kids(signer)
        vault_server.request("POST", f"{mount}/keys/{names['grants']}/rotate")
        assert await kids(signer) == before


async def test_a_version_that_may_not_sign_any_more_is_followed_at_once(
    vault_server: VaultServer, mount: str, names: dict[str, str]
) -> None:
    """The emergency: an operator rotates and forbids the old version; no grant fails, and none waits."""
    async with transit_signer(vault_server, mount=mount, names=names, refresh_s=LONG_S, settle_s=LONG_S) as signer:
        old = (await signer.sign("grants", b"data")).kid
        key = f"{mount}/keys/{names['grants']}"
        vault_server.request("POST", f"{key}/rotate")
        vault_server.request("POST", f"{key}/config", {"min_encryption_version": 2})
        assert (await signer.sign("grants", b"data")).kid != old
        assert old in await kids(signer)


async def test_a_version_that_vault_withdraws_is_published_no_longer(
    vault_server: VaultServer, mount: str, names: dict[str, str]
) -> None:
    async with transit_signer(vault_server, mount=mount, names=names, refresh_s=0) as signer:
        (old,) = await kids(signer)
        key = f"{mount}/keys/{names['grants']}"
        vault_server.request("POST", f"{key}/rotate")
        vault_server.request("POST", f"{key}/config", {"min_encryption_version": 2, "min_decryption_version": 2})
        assert old not in await kids(signer)


async def test_replicas_agree_on_ids(vault_server: VaultServer, mount: str, names: dict[str, str]) -> None:
    async with (
        transit_signer(vault_server, mount=mount, names=names) as one,
        transit_signer(vault_server, mount=mount, names=names) as two,
    ):
        assert await kids(one) == await kids(two)
        signature = await one.sign("grants", b"data")
        (key,) = await two.public_keys("grants")
        assert key.kid == verifying_key(key.jwk).jkt == signature.kid
        verifying_key(key.jwk).verify(b"data", signature.value)


async def test_many_signatures_at_once(vault_server: VaultServer, mount: str, names: dict[str, str]) -> None:
    async with transit_signer(vault_server, mount=mount, names=names) as signer:
        (key,) = await signer.public_keys("heads")
        data = [str(number).encode() for number in range(40)]
        made = await asyncio.gather(*(signer.sign("heads", one) for one in data))
        for one, signature in zip(data, made, strict=True):
            verifying_key(key.jwk).verify(one, signature.value)


async def test_a_signature_of_another_key_than_the_published_one_is_refused(
    vault_server: VaultServer, mount: str, names: dict[str, str]
) -> None:
    """Somebody made the key anew under its name: what Vault signs now, no resource server would take."""
    async with transit_signer(vault_server, mount=mount, names=names, refresh_s=LONG_S) as signer:
        (old,) = await kids(signer)
        key = f"{mount}/keys/{names['grants']}"
        vault_server.request("POST", f"{key}/config", {"deletion_allowed": True})
        vault_server.request("DELETE", key)
        vault_server.request("POST", key, {"type": "ecdsa-p256"})
        with pytest.raises(SignerUnavailable, match="is no signature of transit key"):
            await signer.sign("grants", b"data")
        signer._known["grants"].look_at = 0.0  # it is time to read the key again
        assert (await signer.sign("grants", b"data")).kid != old


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"type": "ecdsa-p256", "exportable": True}, r"can leave Vault \(exportable\)"),
        ({"type": "ecdsa-p256", "allow_plaintext_backup": True}, r"can leave Vault \(allow_plaintext_backup\)"),
        ({"type": "ed25519"}, "is no ecdsa-p256 key"),
        ({"type": "ecdsa-p384"}, "is no ecdsa-p256 key"),
    ],
)
async def test_another_key_than_the_purpose_needs_is_refused(
    vault_server: VaultServer, mount: str, names: dict[str, str], options: dict[str, object], why: str
) -> None:
    name = unique("odd")
    vault_server.request("POST", f"{mount}/keys/{name}", options)
    async with transit_signer(vault_server, mount=mount, names={**names, "grants": name}) as signer:
        with pytest.raises(SignerUnavailable, match=why):
            await signer.sign("grants", b"data")
        with pytest.raises(SignerUnavailable, match=why):
            await signer.public_keys("grants")
        assert (await signer.sign("access", b"data")).alg == "ES256"


async def test_a_derived_key_is_refused(vault_server: VaultServer, mount: str, names: dict[str, str]) -> None:
    vault_server.request("POST", f"{mount}/keys/derived", {"type": "ed25519", "derived": True})
    async with transit_signer(vault_server, mount=mount, names={**names, "heads": "derived"}) as signer:
        with pytest.raises(SignerUnavailable, match="is derived"):
            await signer.sign("heads", b"data")


async def test_a_key_that_is_not_there_says_how_to_make_it(vault_server: VaultServer, mount: str) -> None:
    names = dict.fromkeys(("grants", "access", "heads"), "nowhere")
    async with transit_signer(vault_server, mount=mount, names=names) as signer:
        with pytest.raises(SignerUnavailable, match=r"no transit key nowhere; `stepgrant vault setup` makes it"):
            await signer.sign("grants", b"data")


async def test_a_token_that_may_not_sign_is_named(
    vault_server: VaultServer, mount: str, names: dict[str, str], tmp_path: Path
) -> None:
    made = vault_server.request("POST", "auth/token/create", {"policies": ["default"], "ttl": "60s"})
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(made["auth"]["client_token"])
    from stepgrant_broker.signing.transit import TransitSigner  # noqa: PLC0415 - beside its one use

    async with client(vault_server.addr, token_file) as vault:
        signer = TransitSigner(vault, mount, names, StandingClock())
        with pytest.raises(SignerUnavailable, match=f"lacks 'read' on {mount}/keys/{names['grants']}"):
            await signer.sign("grants", b"data")
    vault_server.request("POST", "auth/token/revoke-accessor", {"accessor": made["auth"]["accessor"]})


async def test_while_vault_is_away_keys_are_published_and_nothing_is_signed(
    new_vault: Callable[..., VaultServer],
) -> None:
    with new_vault(durable=True) as server:
        mount = mounted(server, "transit")
        names = transit_keys(server, mount)
        async with transit_signer(server, mount=mount, names=names, refresh_s=0) as signer:
            before: tuple[PublicKey, ...] = await signer.public_keys("grants")
            server.seal()
            assert await signer.public_keys("grants") == before
            with pytest.raises(SignerUnavailable, match="sealed") as caught:
                await signer.sign("grants", b"data")
            assert caught.value.retry_after_ms is not None
            server.unseal()
            assert await signed_again(signer) == before[0].kid


async def signed_again(signer: TransitSigner) -> str:
    """The id of the first signature that works."""
    async with asyncio.timeout(60):
        while True:
            with suppress(SignerUnavailable):
                return (await signer.sign("grants", b"data")).kid
            await asyncio.sleep(0.05)


async def test_heads_are_signed_by_both_versions_for_a_while(
    vault_server: VaultServer, mount: str, names: dict[str, str]
) -> None:
    clock, timing = real_time(), Timing(heads_overlap_ms=50_000)
    async with transit_signer(
        vault_server, mount=mount, names=names, clock=clock, refresh_s=0, settle_s=100, timing=timing
    ) as signer:
        (old,) = [key.kid for key in await signer.public_keys("heads")]
        await signer.make("heads")
        await signer.make("grants")
        assert [one.kid for one in await signer.sign_all("heads", b"data")] == [old]
        new, _ = await signer.epochs("heads")
        clock.tick(new.signs_from - clock.now())
        made = await signer.sign_all("heads", b"data")
        assert [one.kid for one in made] == [new.key.kid, old]
        keys = {key.kid: key for key in await signer.public_keys("heads")}
        for one in made:
            verifying_key(keys[one.kid].jwk).verify(b"data", one.value)
        assert len(await signer.sign_all("grants", b"data")) == 1
        clock.tick(50_000)
        assert [one.kid for one in await signer.sign_all("heads", b"data")] == [new.key.kid]


async def test_a_withdrawn_version_gives_way_at_once(
    vault_server: VaultServer, mount: str, names: dict[str, str]
) -> None:
    """Vault still shows it, and would sign with it: this broker does not ask."""
    async with transit_signer(vault_server, mount=mount, names=names, refresh_s=LONG_S, settle_s=LONG_S) as signer:
        (old,) = await kids(signer)
        vault_server.request("POST", f"{mount}/keys/{names['grants']}/rotate")
        signer.withdraw([old])
        (new,) = await kids(signer)
        assert (await signer.sign("grants", b"data")).kid == new != old
        assert [epoch.key.kid for epoch in await signer.epochs("grants")] == [new, old]


async def test_who_may_not_rotate_is_told_how(
    vault_server: VaultServer, mount: str, names: dict[str, str], tmp_path: Path
) -> None:
    from logins import broker_token  # noqa: PLC0415 - beside its one use
    from stepgrant_broker.signing.transit import TransitSigner, transit_rules  # noqa: PLC0415 - as above

    token = broker_token(vault_server, transit_rules(mount, names.values()), tmp_path)
    async with client(vault_server.addr, token) as vault:
        signer = TransitSigner(vault, mount, names, StandingClock())
        with pytest.raises(SignerUnavailable, match=f"vault write -f {mount}/keys/{names['grants']}/rotate"):
            await signer.make("grants")
