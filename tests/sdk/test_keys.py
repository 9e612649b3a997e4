"""Keys: thumbprint vectors, what is read as a key and what is not, and that secrets stay inside."""

import copy
import itertools
import json
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from stepgrant._keys import JoseError, SecretKey, thumbprint, verifying_key
from stepgrant.canonical import b64u


def private_jwk(alg: str) -> dict[str, str]:
    """A fresh private JWK, made by other code than ours."""
    if alg == "ES256":
        return dict(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True))
    return dict(OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True))


PRIVATE_EC = private_jwk("ES256")
PRIVATE_OKP = private_jwk("EdDSA")
EC = {name: value for name, value in PRIVATE_EC.items() if name != "d"}
OKP = {name: value for name, value in PRIVATE_OKP.items() if name != "d"}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_BASE_POINT = bytes.fromhex("5866666666666666666666666666666666666666666666666666666666666666")


def test_thumbprint_of_rfc8037() -> None:
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}

    assert verifying_key(jwk).jkt == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_thumbprint_of_rfc7638() -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3ok"
        "njhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu"
        "6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8a"
        "wapJzKnqDKgw"
    )

    assert thumbprint({"e": "AQAB", "kty": "RSA", "n": modulus}) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_what_one_signs_the_other_verifies(alg: str) -> None:
    ours = SecretKey.generate(alg)
    theirs = SecretKey.from_jwk(PRIVATE_EC if alg == "ES256" else PRIVATE_OKP)

    verifying_key(ours.public.jwk).verify(b"data", ours.sign(b"data"))
    verifying_key(EC if alg == "ES256" else OKP).verify(b"data", theirs.sign(b"data"))
    assert theirs.public.jwk == (EC if alg == "ES256" else OKP)
    assert SecretKey.from_jwk(ours.to_private_jwk()).public == ours.public
    assert len(ours.sign(b"data")) == 64


def test_es256_signatures_are_those_of_another_implementation() -> None:
    ours, oracle = SecretKey.generate("ES256"), ECAlgorithm(ECAlgorithm.SHA256)
    theirs = ECAlgorithm.from_jwk(ours.to_private_jwk())
    assert isinstance(theirs, ec.EllipticCurvePrivateKey)
    numbers, made = itertools.count(), bytes(64)
    # One in 128 signatures has a number that begins with a zero byte: the form must leave room for it.
    while made == bytes(64) or 0 not in (made[0], made[32]):
        data = str(next(numbers)).encode()
        made = ours.sign(data)
        assert oracle.verify(data, theirs.public_key(), made)
        ours.public.verify(data, oracle.sign(data, theirs))


def test_an_es256_signature_in_der_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = verifying_key(ECAlgorithm.to_jwk(key.public_key(), as_dict=True))

    with pytest.raises(JoseError, match="bad_signature"):
        public.verify(b"data", key.sign(b"data", ec.ECDSA(SHA256())))


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
def test_a_changed_message_or_signature_fails(alg: str) -> None:
    key = SecretKey.generate(alg)
    good = key.sign(b"data")
    for data, signature in [
        (b"dat", good),
        (b"data", bytes(64)),
        (b"data", good[:-1]),
        (b"data", good + b"\0"),
        (b"data", b""),
        (b"data", bytes([good[0] ^ 1]) + good[1:]),
        (b"data", good[:32] + P256_ORDER.to_bytes(32, "big")),
    ]:
        with pytest.raises(JoseError) as caught:
            key.public.verify(data, signature)
        assert caught.value.reason == "bad_signature"


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        ({**EC, "d": "AA"}, "private_key"),
        ({**OKP, "d": "AA"}, "private_key"),
        ({"kty": "oct", "k": "AAAA"}, "private_key"),
        ({"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "bad_key"),
        ({}, "bad_key"),
        ({**EC, "crv": "P-384"}, "bad_key"),
        ({**EC, "crv": "secp256k1"}, "bad_key"),
        ({**EC, "kty": "OKP"}, "bad_key"),
        ({**OKP, "crv": "Ed448"}, "bad_key"),
        ({**OKP, "crv": "X25519"}, "bad_key"),
        ({**OKP, "kty": ["OKP"]}, "bad_key"),
        ({**EC, "y": EC["x"]}, "bad_key"),
        ({**EC, "x": EC["x"] + "="}, "bad_key"),
        ({**EC, "x": EC["x"][:-2]}, "bad_key"),
        ({**EC, "x": "AAAA" + EC["x"]}, "bad_key"),
        ({**EC, "y": 5}, "bad_key"),
        ({**EC, "y": None}, "bad_key"),
        ({**EC, "alg": "ES384"}, "bad_key"),
        ({**EC, "alg": "none"}, "bad_key"),
        ({**EC, "use": "enc"}, "bad_key"),
    ],
)
def test_what_is_no_public_signing_key_is_refused(jwk: dict[str, object], reason: str) -> None:
    with pytest.raises(JoseError) as caught:
        verifying_key(jwk)

    assert caught.value.reason == reason


def test_markings_that_fit_are_accepted_and_left_out() -> None:
    key = verifying_key({**EC, "alg": "ES256", "use": "sig", "kid": "k1", "key_ops": ["verify"]})

    assert key.jwk == EC


def small_order_points() -> list[bytes]:
    prime = 2**255 - 19
    order_eight = (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
    heights = [0, 1, prime - 1, prime, prime + 1, *(int.from_bytes(bytes.fromhex(y), "little") for y in order_eight)]
    return [(y | sign << 255).to_bytes(32, "little") for y in heights for sign in (0, 1)]


@pytest.mark.parametrize("point", small_order_points(), ids=bytes.hex)
def test_ed25519_points_under_which_anybody_can_sign_are_refused(point: bytes) -> None:
    with pytest.raises(JoseError) as caught:
        verifying_key({"kty": "OKP", "crv": "Ed25519", "x": b64u(point)})

    assert caught.value.reason == "bad_key"


def test_the_library_would_take_a_forgery_under_the_neutral_point() -> None:
    """Why small orders are refused: R = B, s = 1 is a signature of everything under the neutral point."""
    neutral = ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    neutral.verify(ED25519_BASE_POINT + (1).to_bytes(32, "little"), b"anything at all")


def test_private_jwks_must_fit_together() -> None:
    one, other = private_jwk("ES256"), private_jwk("ES256")
    for jwk in (
        {**one, "d": other["d"]},
        {**one, "d": "A" * 43},
        {name: value for name, value in one.items() if name != "d"},
        {**one, "d": 5},
    ):
        with pytest.raises(JoseError) as caught:
            SecretKey.from_jwk(jwk)
        assert caught.value.reason == "bad_key"


def test_other_algorithms_are_not_made() -> None:
    with pytest.raises(JoseError, match="bad_algorithm"):
        SecretKey.generate("RS256")


def test_a_secret_key_shows_and_gives_away_nothing() -> None:
    key = SecretKey.generate()
    secret = key.to_private_jwk()["d"]

    assert secret not in repr(key)
    assert secret not in json.dumps(key.public.jwk)
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            take(key)


def test_a_shared_key_cannot_be_changed_through_its_jwk() -> None:
    key = verifying_key(EC)
    key.jwk["x"] = "changed"

    assert verifying_key(EC).jwk == EC
