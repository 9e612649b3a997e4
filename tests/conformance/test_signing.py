"""What every adapter of the `Signer` and `KeyWrap` ports keeps; a new one is added to the lists."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stepgrant._keys import verifying_key
from stepgrant_broker.domain.errors import SignerUnavailable, StoreUnavailable
from stepgrant_broker.domain.ports import KeyWrap, Signer, Wrapped
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap

SIGNERS: list[Callable[[Path], Signer]] = [lambda path: LocalSigner.open(path / "keys", create=True)]
WRAPS: list[Callable[[Path], KeyWrap]] = [lambda path: LocalWrap.open(path / "keys", create=True)]
PURPOSES = {"grants": "ES256", "access": "ES256", "heads": "EdDSA"}


@pytest.fixture(params=SIGNERS, ids=["local"])
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    made: Signer = request.param(tmp_path)
    return made


@pytest.fixture(params=WRAPS, ids=["local"])
def wrap(request: pytest.FixtureRequest, tmp_path: Path) -> KeyWrap:
    made: KeyWrap = request.param(tmp_path)
    return made


@pytest.mark.parametrize("purpose", PURPOSES)
async def test_a_signature_names_its_key_and_verifies_with_the_published_one(signer: Signer, purpose: str) -> None:
    signature = await signer.sign(purpose, b"data")
    published = {key.kid: key for key in await signer.public_keys(purpose)}
    key = published[signature.kid]

    assert signature.alg == key.alg == key.jwk["alg"] == PURPOSES[purpose]
    assert (key.jwk["kid"], key.jwk["use"], len(signature.value)) == (key.kid, "sig", 64)
    verifying_key(key.jwk).verify(b"data", signature.value)


async def test_only_public_members_are_published_and_no_key_serves_two_purposes(signer: Signer) -> None:
    kids = [key.kid for purpose in PURPOSES for key in await signer.public_keys(purpose)]
    members = {name for purpose in PURPOSES for key in await signer.public_keys(purpose) for name in key.jwk}

    assert len(kids) == len(set(kids))
    assert members == {"alg", "crv", "kid", "kty", "use", "x", "y"}


async def test_the_newest_key_is_published_first_and_signs(signer: Signer) -> None:
    assert (await signer.sign("grants", b"")).kid == (await signer.public_keys("grants"))[0].kid


async def test_an_unknown_purpose_is_unavailable(signer: Signer) -> None:
    with pytest.raises(SignerUnavailable):
        await signer.sign("anything", b"data")
    with pytest.raises(SignerUnavailable):
        await signer.public_keys("anything")


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
