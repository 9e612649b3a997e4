"""Keys of other people's issuers: which are used, which are left out, and which sets are refused whole."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384, SHA512
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from forging import eddsa, es256, rs256
from stepgrant._keys import JoseError
from stepgrant_broker.identity.public_keys import IssuerKey, KeySetRefused, read_key_set

SIG: frozenset[str | None] = frozenset({"sig", None})
DATA = b"header.claims"


def read(*keys: object, uses: frozenset[str | None] = SIG) -> tuple[IssuerKey, ...]:
    return read_key_set({"keys": list(keys)}, uses)


def refused(key: IssuerKey, alg: str, signature: bytes) -> str:
    with pytest.raises(JoseError) as caught:
        key.verify(alg, DATA, signature)
    return caught.value.reason


@pytest.mark.parametrize("make", [rs256, es256, eddsa])
def test_a_key_verifies_what_it_signed_and_nothing_else(make: Any) -> None:  # noqa: ANN401
    made = make()
    (key,) = read({**made.jwk, "kid": "k"})
    signature = made.sign(DATA)
    key.verify(made.alg, DATA, signature)

    changed = signature[:-1] + bytes([signature[-1] ^ 1])
    assert refused(key, made.alg, changed) == "bad_signature"
    assert refused(key, made.alg, b"") == "bad_signature"
    for other in ("none", "HS256", "HS512", "RS1", "ES256K", ""):
        assert refused(key, other, signature) == "bad_algorithm"


def test_the_larger_curves_and_rsa_with_pss() -> None:
    p384, p521 = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1())
    one = rs256()
    keys = read(
        {**ECAlgorithm.to_jwk(p384.public_key(), as_dict=True), "kid": "a"},
        {**ECAlgorithm.to_jwk(p521.public_key(), as_dict=True), "kid": "b"},
        {**one.jwk, "kid": "c"},
    )
    keys[0].verify("ES384", DATA, ECAlgorithm(ECAlgorithm.SHA384).sign(DATA, p384))
    keys[1].verify("ES512", DATA, ECAlgorithm(ECAlgorithm.SHA512).sign(DATA, p521))
    keys[2].verify("RS384", DATA, one.key.sign(DATA, padding.PKCS1v15(), SHA384()))
    pss = padding.PSS(mgf=padding.MGF1(SHA512()), salt_length=64)
    keys[2].verify("PS512", DATA, one.key.sign(DATA, pss, SHA512()))
    assert [min(key.algorithms) for key in keys] == ["ES384", "ES512", "PS256"]


def test_a_key_that_names_its_algorithm_verifies_no_other() -> None:
    made = rs256()
    (key,) = read({**made.jwk, "kid": "k", "alg": "RS512"})
    assert key.algorithms == {"RS512"}
    assert refused(key, "RS256", made.sign(DATA)) == "bad_algorithm"


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_a_set_that_gives_a_secret_away_is_refused_whole(member: str) -> None:
    with pytest.raises(KeySetRefused, match="private or symmetric"):
        read({**es256().jwk, "kid": "good"}, {"kty": "oct", "kid": "bad", member: "c2VjcmV0"})


def test_two_keys_under_one_kid_are_refused_and_one_key_twice_is_one() -> None:
    one = {**es256().jwk, "kid": "k"}
    assert len(read(one, dict(one))) == 1
    with pytest.raises(KeySetRefused, match="share a kid"):
        read(one, {**es256().jwk, "kid": "k"})


def test_what_is_no_key_set_is_refused() -> None:
    documents: list[dict[str, object]] = [{}, {"keys": None}, {"keys": {}}, {"keys": "x"}]
    for document in documents:
        with pytest.raises(KeySetRefused, match="no JWKS"):
            read_key_set(document, SIG)
    with pytest.raises(KeySetRefused, match="more than 100"):
        read(*[{"kty": "?"}] * 101)


def test_keys_of_other_kinds_and_uses_are_left_out() -> None:
    good = es256().jwk
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is the point
    left_out: list[object] = [
        5, "x", None, {}, {"kty": "AKP"}, {**good, "use": "enc"}, {**good, "use": "jwt-svid"}, {**good, "crv": "P-384"},
        {**good, "crv": "secp256k1"}, {**good, "x": good["y"]}, {**good, "x": good["x"] + "="}, {**good, "kid": 5},
        {**good, "kid": ""}, {**good, "alg": "HS256"}, {**good, "alg": "ES384"}, {**good, "y": 5},
        dict(RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True)), {**rs256().jwk, "e": "AQ"},
        {**rs256().jwk, "n": ""},
        {"kty": "OKP", "crv": "Ed25519", "x": "AQ" + "A" * 41}, {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
    ]  # fmt: skip
    assert read(*left_out) == ()
    assert read({**good, "use": "sig"}, uses=frozenset({"jwt-svid"})) == ()
    assert read(good, uses=frozenset({"jwt-svid"})) == ()
    assert len(read({**good, "use": "jwt-svid"}, uses=frozenset({"jwt-svid"}))) == 1


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid"]),
        st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "A" * 43, "sig", "-"]) | st.none() | st.text(),
        max_size=9,
    )
)
def test_any_members_raise_nothing_foreign(jwk: dict[str, Any]) -> None:
    with contextlib.suppress(KeySetRefused):
        for key in read(jwk):
            with contextlib.suppress(JoseError):
                key.verify("RS256", DATA, b"\x00" * 64)
