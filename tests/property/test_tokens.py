"""Whatever text arrives where a token or proof is expected: our own error or a true verification, nothing else."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from forging import es256
from stepgrant import _jose, errors
from stepgrant._dpop import DpopKey, normal_url, verify_proof
from stepgrant._keys import JoseError, SecretKey, verifying_key

NOW = 1_790_000_000
URL = "https://broker.example/v1/runs"
HOLDER = DpopKey()
GOOD = HOLDER.proof("POST", URL, token="token", now=NOW)
FORGER = es256()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
jwk_names = st.sampled_from(["kty", "crv", "x", "y", "d", "alg", "use", "k", "n"])
jwks = st.dictionaries(jwk_names, json_values | st.sampled_from(["EC", "OKP", "P-256", "Ed25519", "A" * 43]))


def verify(proof: str) -> None:
    verify_proof(proof, method="POST", url=URL, token="token", now_s=NOW)


@given(st.text())
def test_any_text_as_a_proof(text: str) -> None:
    with contextlib.suppress(errors.InvalidProof):
        verify(text)
        raise AssertionError(text)


@given(st.data())
def test_no_change_of_a_good_proof_is_accepted(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(GOOD) - 1))
    character = data.draw(st.characters(max_codepoint=0x17F).filter(lambda c: c != GOOD[position]))
    changed = data.draw(
        st.sampled_from(
            [
                GOOD[:position] + character + GOOD[position + 1 :],
                GOOD[:position] + GOOD[position + 1 :],
                GOOD[:position] + character + GOOD[position:],
                GOOD[:position],
            ]
        )
    )
    verify(GOOD)
    with contextlib.suppress(errors.InvalidProof):
        verify(changed)
        # Only the very same text may pass: removing one of two equal neighbours can give it back.
        assert changed == GOOD


@given(json_values, json_values)
def test_any_signed_header_and_claims(header: object, claims: object) -> None:
    with contextlib.suppress(errors.InvalidProof):
        verify(FORGER.jws(header, claims))
        raise AssertionError


@given(json_values, jwks, json_values)
def test_any_key_in_the_header_and_any_claim(alg: object, jwk: dict[str, object], claim: object) -> None:
    header = {"typ": "dpop+jwt", "alg": alg, "jwk": {**FORGER.jwk, **jwk}}
    body = {"jti": "j" * 16, "htm": "POST", "htu": URL, "iat": claim, "ath": claim, "nonce": claim}
    with contextlib.suppress(errors.InvalidProof):
        verify(FORGER.jws(header, body))
        raise AssertionError


@given(jwks)
def test_any_jwk(jwk: dict[str, object]) -> None:
    for read in (verifying_key, SecretKey.from_jwk):
        with contextlib.suppress(JoseError):
            read(jwk)


@given(st.text(alphabet="ABab01-_=. \n", max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_any_text_as_a_token(text: str) -> None:
    with contextlib.suppress(JoseError):
        _jose.parse(text).unverified_claims()


@given(st.text() | st.from_regex(r"https?://[^/]*/.*", fullmatch=True))
def test_any_text_as_a_url_and_normal_forms_are_stable(url: str) -> None:
    with contextlib.suppress(ValueError):
        assert normal_url(normal_url(url)) == normal_url(url)
