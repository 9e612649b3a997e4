"""Proofs of possession as attackers send them; each is refused for its own reason."""

import hashlib
import hmac
import json
from collections.abc import Callable

import pytest

from forging import ForgersKey, b64, eddsa, es256, part
from stepgrant import errors
from stepgrant._dpop import DpopKey, token_hash, verify_proof

NOW = 1_790_000_000
URL = "https://broker.example/v1/runs/run_1/steps/charge/begin"
TOKEN = "eyJ0.access.token"
KEY = es256()


def header(**changes: object) -> dict[str, object]:
    return {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.jwk, **changes}


def claims(**changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "jti": "jti-0123456789abcdef",
        "htm": "POST",
        "htu": URL,
        "iat": NOW,
        "ath": token_hash(TOKEN),
        "nonce": "n-1",
        **changes,
    }
    return {name: value for name, value in made.items() if value is not ...}


def refused(proof: str) -> str:
    """The reason for which the proof is refused; the nonce must not have been asked about."""
    asked: list[str | None] = []
    with pytest.raises(errors.InvalidProof) as caught:
        verify_proof(proof, method="POST", url=URL, token=TOKEN, now_s=NOW, check_nonce=asked.append)
    assert caught.value.code == "invalid_dpop_proof"
    assert asked == []
    return caught.value.reason


def test_the_untouched_proof_is_accepted() -> None:
    assert verify_proof(KEY.jws(header(), claims()), method="POST", url=URL, token=TOKEN, now_s=NOW).iat == NOW


def hs256(secret: bytes) -> Callable[[dict[str, object], dict[str, object]], str]:
    def make(head: dict[str, object], body: dict[str, object]) -> str:
        signing_input = f"{part(head)}.{part(body)}"
        return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"

    return make


@pytest.mark.parametrize("alg", ["none", "None", "", "HS256", "RS256", "ES384", "ES256K", "EdDSA"])
def test_an_algorithm_that_is_not_the_keys(alg: str) -> None:
    assert refused(KEY.jws(header(alg=alg), claims())) == "bad_algorithm"


def test_alg_none_with_an_empty_signature() -> None:
    assert refused(f"{part(header(alg='none'))}.{part(claims())}.") == "malformed"


def test_a_mac_keyed_with_the_public_key() -> None:
    make = hs256(json.dumps(KEY.jwk).encode())

    assert refused(make(header(alg="HS256"), claims())) == "bad_algorithm"
    assert refused(make(header(), claims())) == "bad_signature"


def test_a_symmetric_key_in_the_header() -> None:
    make = hs256(b"secret")
    jwk = {"kty": "oct", "k": b64(b"secret")}

    assert refused(make(header(alg="HS256", jwk=jwk), claims())) == "private_key"
    assert refused(make(header(alg="HS256", jwk={"kty": "oct"}), claims())) == "bad_key"


@pytest.mark.parametrize("key", [es256(), eddsa()], ids=lambda key: key.alg)
def test_the_private_key_in_the_header(key: ForgersKey) -> None:
    assert refused(key.jws(header(alg=key.alg, jwk=key.private_jwk), claims())) == "private_key"


def test_another_key_in_the_header_than_the_one_that_signed() -> None:
    assert refused(es256().jws(header(), claims())) == "bad_signature"


@pytest.mark.parametrize("jwk", [..., None, "jwk", [], {}, {**KEY.jwk, "crv": "P-384"}, {**KEY.jwk, "y": KEY.jwk["x"]}])
def test_a_header_without_a_usable_key(jwk: object) -> None:
    head = {name: value for name, value in header(jwk=jwk).items() if value is not ...}

    assert refused(KEY.jws(head, claims())) == "bad_key"


@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "dpop", "application/jwt", 5, ["dpop+jwt"]])
def test_a_token_of_another_type(typ: object) -> None:
    assert refused(KEY.jws(header(typ=typ), claims())) == "wrong_type"


@pytest.mark.parametrize("crit", [["b64"], [], "exp", None])
def test_an_extension_that_must_be_understood(crit: object) -> None:
    assert refused(KEY.jws(header(crit=crit, b64=False), claims())) == "unknown_critical"


@pytest.mark.parametrize("htm", ["GET", "post", "", None, 5, ...])
def test_another_method(htm: object) -> None:
    assert refused(KEY.jws(header(), claims(htm=htm))) == "wrong_method"


@pytest.mark.parametrize(
    "htu",
    [
        "https://broker.example/v1/runs",
        "http://broker.example/v1/runs/run_1/steps/charge/begin",
        "https://evil.example/v1/runs/run_1/steps/charge/begin",
        "https://broker.example:8443/v1/runs/run_1/steps/charge/begin",
        "https://broker.example@evil.example/v1/runs/run_1/steps/charge/begin",
        "/v1/runs/run_1/steps/charge/begin",
        "https://[::1",
        URL + "/",
        URL + "%",
        "",
        None,
        [URL],
        ...,
    ],
)
def test_another_url(htu: object) -> None:
    assert refused(KEY.jws(header(), claims(htu=htu))) == "wrong_url"


@pytest.mark.parametrize("ath", [token_hash("another token"), "", token_hash(TOKEN)[:-1], "é", 5, None, ...])
def test_a_proof_for_another_token(ath: object) -> None:
    assert refused(KEY.jws(header(), claims(ath=ath))) == "wrong_token_hash"


def test_a_proof_with_a_token_hash_where_no_token_is() -> None:
    proof = DpopKey().proof("POST", URL, token=TOKEN, now=NOW)
    with pytest.raises(errors.InvalidProof) as caught:
        verify_proof(proof, method="POST", url=URL, token=None, now_s=NOW)

    assert caught.value.reason == "wrong_token_hash"


@pytest.mark.parametrize(("iat", "reason"), [(NOW - 61, "too_old"), (NOW + 6, "from_the_future"), (0, "too_old")])
def test_a_proof_made_at_another_time(iat: int, reason: str) -> None:
    assert refused(KEY.jws(header(), claims(iat=iat))) == reason


@pytest.mark.parametrize("iat", [NOW - 60, NOW + 5])
def test_the_edges_of_the_window_are_inside(iat: int) -> None:
    proof = KEY.jws(header(), claims(iat=iat))

    assert verify_proof(proof, method="POST", url=URL, token=TOKEN, now_s=NOW).iat == iat


@pytest.mark.parametrize("iat", [None, "now", True, 1.5, [NOW], ...])
def test_a_proof_without_a_time(iat: object) -> None:
    assert refused(KEY.jws(header(), claims(iat=iat))) == "bad_iat"


@pytest.mark.parametrize("jti", [None, "", "short", "x" * 129, "with space in it.", "é" * 20, 5, ["j"], ...])
def test_a_proof_without_a_usable_id(jti: object) -> None:
    assert refused(KEY.jws(header(), claims(jti=jti))) == "bad_jti"


@pytest.mark.parametrize("nonce", [None, 5, ["n-1"], ...])
def test_a_nonce_that_is_no_text_counts_as_none(nonce: object) -> None:
    asked: list[str | None] = []
    proof = KEY.jws(header(), claims(nonce=nonce))
    verify_proof(proof, method="POST", url=URL, token=TOKEN, now_s=NOW, check_nonce=asked.append)

    assert asked == [None]


def test_the_nonce_is_only_discussed_with_whoever_holds_the_key() -> None:
    good = KEY.jws(header(), claims())

    assert refused(good[:-8] + "AAAAAAAA") in {"bad_signature", "malformed"}


def test_duplicate_members_in_header_and_claims() -> None:
    twice = json.dumps(claims()).replace('"htm": "POST"', '"htm": "GET", "htm": "POST"').encode()
    head = json.dumps(header()).replace('"typ"', '"typ": "JWT", "typ"').encode()

    assert refused(KEY.jws(header(), twice)) == "malformed"
    assert refused(KEY.jws(head, claims())) == "malformed"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'"text"', b"\xff", b'{"iat": 1e999}', b'{"a":NaN}', b'{"a":"\\ud800"}']
)
def test_claims_that_are_no_strict_json_object(body: bytes) -> None:
    assert refused(KEY.jws(header(), body)) == "malformed"


def test_oversized_proofs_and_headers() -> None:
    assert refused(KEY.jws(header(), claims(pad="x" * 4096))) == "too_large"
    assert refused(KEY.jws(header(kid="x" * 1000), claims())) == "too_large"


def test_two_proofs_joined_as_one_header_value() -> None:
    one = KEY.jws(header(), claims())

    assert refused(f"{one}, {one}") == "malformed"


@pytest.mark.parametrize("change", ["{}=", "{} ", " {}", "{}.", "{}.AA", "{}\n", "é{}"])
def test_a_second_text_for_one_proof(change: str) -> None:
    assert refused(change.format(KEY.jws(header(), claims()))) == "malformed"


def test_a_signature_with_other_trailing_bits() -> None:
    good = KEY.jws(header(), claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = good[:-1] + alphabet[alphabet.index(good[-1]) ^ 1]

    assert refused(twin) == "malformed"


def test_the_json_forms_of_jws() -> None:
    head, body, signature = KEY.jws(header(), claims()).split(".")
    flat = json.dumps({"protected": head, "payload": body, "signature": signature})

    assert refused(flat) == "malformed"
    assert refused("....") == "malformed"
    assert refused("") == "malformed"
