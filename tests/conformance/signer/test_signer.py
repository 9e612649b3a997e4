"""One suite for the port `Signer`, run over every adapter of `adapters.py`."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from conformance.signer.adapters import ADAPTERS, PARAMS
from stepgrant._keys import PRIVATE_MEMBERS, JoseError, verifying_key
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.ports import Signer, SigningKeys

PURPOSES = {"grants": "ES256", "access": "ES256", "heads": "EdDSA"}
BY_PURPOSE = pytest.mark.parametrize("purpose", PURPOSES)


@pytest.fixture(params=PARAMS)
async def signer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SigningKeys]:
    async with ADAPTERS[request.param](request, tmp_path) as made:
        yield made


@BY_PURPOSE
async def test_a_signature_is_by_the_newest_published_key(signer: Signer, purpose: str) -> None:
    signature = await signer.sign(purpose, b"data")
    newest = (await signer.public_keys(purpose))[0]
    assert (signature.kid, signature.alg) == (newest.kid, newest.alg)
    assert signature.alg == PURPOSES[purpose]
    assert len(signature.value) == 64
    verifying_key(newest.jwk).verify(b"data", signature.value)


@BY_PURPOSE
@pytest.mark.parametrize("data", [b"", b"x" * 100_000, bytes(range(256))])
async def test_any_bytes_can_be_signed(signer: Signer, purpose: str, data: bytes) -> None:
    signature = await signer.sign(purpose, data)
    key = verifying_key((await signer.public_keys(purpose))[0].jwk)
    key.verify(data, signature.value)
    with pytest.raises(JoseError):
        key.verify(data + b"!", signature.value)


@BY_PURPOSE
async def test_published_keys_are_complete_and_public(signer: Signer, purpose: str) -> None:
    for key in await signer.public_keys(purpose):
        assert PRIVATE_MEMBERS.isdisjoint(key.jwk)
        assert {name: key.jwk[name] for name in ("alg", "use", "kid")} == {
            "alg": key.alg, "use": "sig", "kid": key.kid,
        }  # fmt: skip
        assert verifying_key(key.jwk).jkt == key.kid


async def test_each_purpose_has_keys_of_its_own(signer: Signer) -> None:
    """Or a signed head could be passed off as a grant."""
    kids = [key.kid for purpose in PURPOSES for key in await signer.public_keys(purpose)]
    assert len(set(kids)) == len(kids)


@BY_PURPOSE
async def test_signing_with_all_begins_with_the_one_that_signs(signer: SigningKeys, purpose: str) -> None:
    newest = (await signer.public_keys(purpose))[0]
    (made,) = await signer.sign_all(purpose, b"data")
    assert made.kid == newest.kid
    verifying_key(newest.jwk).verify(b"data", made.value)


@BY_PURPOSE
async def test_epochs_are_the_keys_where_they_rest(signer: SigningKeys, purpose: str) -> None:
    (epoch,) = await signer.epochs(purpose)
    assert (epoch.number, epoch.signs) == (1, True)
    assert (epoch.key,) == await signer.public_keys(purpose)


async def test_a_withdrawn_key_neither_signs_nor_is_it_published(signer: SigningKeys) -> None:
    (grants,), (access,) = await signer.public_keys("grants"), await signer.public_keys("access")
    signer.withdraw([grants.kid])
    for call in (signer.sign, signer.sign_all):
        with pytest.raises(SignerUnavailable, match="revoked"):
            await call("grants", b"data")
    with suppress(SignerUnavailable):  # or none at all
        assert grants.kid not in [key.kid for key in await signer.public_keys("grants")]
    assert (await signer.sign("access", b"data")).kid == access.kid
    signer.withdraw([])
    assert (await signer.sign("grants", b"data")).kid == grants.kid


async def test_an_unknown_purpose_is_unavailable(signer: Signer) -> None:
    with pytest.raises(SignerUnavailable):
        await signer.sign("everything", b"data")
    with pytest.raises(SignerUnavailable):
        await signer.public_keys("everything")


def test_a_signer_stays_in_its_process(signer: Signer) -> None:
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            take(signer)
