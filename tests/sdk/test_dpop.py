"""DPoP: the RFC's own proofs verify, ours verify, and a holder's key stays in its process."""

import copy
import os
import pickle

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from stepgrant import errors
from stepgrant._dpop import DpopKey, normal_url, token_hash, verify_proof
from stepgrant._verification_errors import InvalidProof

NOW = 1_790_000_000.5
URL = "https://broker.example/v1/runs"
RFC_HEADER = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRj"
    "QyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)
RFC_TOKEN_REQUEST = (
    f"{RFC_HEADER}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rv"
    "a2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3"
    "Lg"
)
RFC_RESOURCE_REQUEST = (
    f"{RFC_HEADER}.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9w"
    "cm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ"
    "9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_ACCESS_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"  # published in RFC 9449
RFC_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_the_proofs_printed_in_rfc9449_verify() -> None:
    first = verify_proof(
        RFC_TOKEN_REQUEST, method="POST", url="https://server.example.com/token", token=None, now_s=1562262620
    )
    second = verify_proof(
        RFC_RESOURCE_REQUEST,
        method="GET",
        url="https://resource.example.org/protectedresource",
        token=RFC_ACCESS_TOKEN,
        now_s=1562262620,
    )

    assert (first.jkt, first.jti, first.iat) == (RFC_JKT, "-BwC3ESc6acc2lTc", 1562262616)
    assert (second.jkt, second.jti) == (RFC_JKT, "e1j3V_bKic8-LAEB")


def test_token_hash_vector() -> None:
    assert token_hash(RFC_ACCESS_TOKEN) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def test_the_hash_that_is_known_already_is_what_counts() -> None:
    proof = DpopKey().proof("POST", URL, token="tok", now=NOW)
    verify_proof(proof, method="POST", url=URL, token="tok", ath=token_hash("tok"), now_s=NOW)
    with pytest.raises(InvalidProof, match="ath is not the hash"):
        verify_proof(proof, method="POST", url=URL, token="tok", ath=token_hash("other"), now_s=NOW)
    with pytest.raises(InvalidProof, match="without an access token"):
        verify_proof(proof, method="POST", url=URL, token=None, ath=token_hash("tok"), now_s=NOW)


def test_our_proof_verifies_here_and_with_another_library() -> None:
    key = DpopKey()
    proof = key.proof("POST", f"{URL}?a=b#c", token="tok", nonce="n-1", now=NOW)
    seen: list[str | None] = []
    verified = verify_proof(proof, method="POST", url=URL, token="tok", now_s=NOW, check_nonce=seen.append)
    header = jwt.get_unverified_header(proof)
    claims = jwt.decode(proof, jwt.PyJWK(header["jwk"]), algorithms=["ES256"], options={"verify_iat": False})

    assert (verified.jkt, verified.iat, seen) == (key.jkt, 1_790_000_000, ["n-1"])
    assert header == {"alg": "ES256", "jwk": key.public_jwk, "typ": "dpop+jwt"}
    assert claims == {
        "ath": token_hash("tok"),
        "htm": "POST",
        "htu": URL,
        "iat": 1_790_000_000,
        "jti": verified.jti,
        "nonce": "n-1",
    }


def test_an_ed25519_proof_verifies() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    claims = {"jti": "j" * 16, "htm": "GET", "htu": URL, "iat": int(NOW)}
    proof = jwt.encode(claims, key, algorithm="EdDSA", headers={"typ": "dpop+jwt", "jwk": jwk})

    assert verify_proof(proof, method="GET", url=URL, token=None, now_s=NOW).jti == "j" * 16


def test_each_proof_has_its_own_id_and_each_key_its_own_thumbprint() -> None:
    key = DpopKey()
    jtis = {
        verify_proof(key.proof("GET", URL, now=NOW), method="GET", url=URL, token=None, now_s=NOW).jti
        for _ in range(50)
    }

    assert len(jtis) == 50
    assert DpopKey().jkt != key.jkt


def test_no_nonce_reaches_the_nonce_check_as_none() -> None:
    def refuse(nonce: str | None) -> None:
        raise errors.NonceRequired(f"got {nonce}", reason="nonce_missing")

    proof = DpopKey().proof("GET", URL, now=NOW)
    with pytest.raises(errors.NonceRequired, match="got None"):
        verify_proof(proof, method="GET", url=URL, token=None, now_s=NOW, check_nonce=refuse)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTPS://Broker.Example/v1", "https://broker.example/v1"),
        ("https://broker.example:443/v1", "https://broker.example/v1"),
        ("http://broker.example:80", "http://broker.example/"),
        ("https://broker.example", "https://broker.example/"),
        ("https://broker.example/a?x=1#y", "https://broker.example/a"),
        ("https://broker.example/%7euser/%2f", "https://broker.example/~user/%2F"),
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]/"),
    ],
)
def test_spellings_of_one_url(one: str, other: str) -> None:
    assert normal_url(one) == normal_url(other) == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://broker.example/V1", "https://broker.example/v1"),
        ("http://broker.example/", "https://broker.example/"),
        ("https://broker.example:8443/", "https://broker.example/"),
        ("https://broker.example/a/", "https://broker.example/a"),
        ("https://broker.example/a/../b", "https://broker.example/b"),
        ("https://broker.example/a%2Fb", "https://broker.example/a/b"),
        ("https://broker.example.evil.example/", "https://broker.example/"),
    ],
)
def test_other_urls_stay_other(one: str, other: str) -> None:
    assert normal_url(one) != normal_url(other)


BAD_URLS = [
    "",
    "/v1",
    "broker.example",
    "ftp://broker.example/",
    "https://",
    "https://user@broker.example/",
    "https://user:secret@broker.example/",
    "https://broker.example:99999/",
    "https://broker.example:x/",
    "https://[::1/",
    "https://bröker.example/",
    "https://broker.example/a b",
    "https://broker.example/\n",
    "https://broker.example\\@evil.example/",
    "https://broker.example/%zz",
    "https://broker.example/%2",
    "https://broker.example/" + "a" * 3000,
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_url_of_a_request(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        normal_url(url)
    with pytest.raises(errors.ConfigurationError):
        DpopKey().proof("GET", url)


def test_a_holders_key_shows_and_gives_away_nothing() -> None:
    key = DpopKey()

    assert repr(key) == f"DpopKey(jkt={key.jkt}, <masked>)"
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            take(key)


def test_a_forked_child_has_no_key() -> None:
    key = DpopKey()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run in here
        try:
            key.proof("GET", URL)
            said = b"signed"
        except errors.KeyLost as error:
            said = error.code.encode() + (b"" if key._secret is None else b", still there")
        os.write(writer, said)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"key_lost"
    assert key.proof("GET", URL)
