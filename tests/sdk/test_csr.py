"""Certificate requests: what the SDK makes, and what the broker accepts of anybody."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from stepgrant import canonical
from stepgrant._csr import MAX_CHARS, RequestRefused, make_request, read_request


def requested(key: CertificateIssuerPrivateKeyTypes, name: str = "mallory") -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, digest)
    return made.public_bytes(Encoding.PEM).decode()


def test_a_request_of_ours_has_a_key_and_no_name() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    made = make_request(key)
    found = x509.load_pem_x509_csr(made.pem.encode())
    assert found.subject == x509.Name([])
    assert len(found.extensions) == 0
    assert found.public_key() == key.public_key()
    assert found.is_signature_valid


def test_a_key_is_named_by_the_hash_of_its_public_key_info() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert make_request(key).key == "sha-256:" + canonical.b64u(hashlib.sha256(info).digest())


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["p256", "p384", "ed25519", "rsa2048"],
)
def test_a_request_of_others_is_read(make: type[ec.EllipticCurvePrivateKey]) -> None:
    key = make()
    read = read_request(requested(key))
    assert x509.load_pem_x509_csr(read.pem.encode()).public_key() == key.public_key()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        ed448.Ed448PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - weak, which is the point
    ],
    ids=["p256k1", "p521", "ed448", "rsa1024"],
)
def test_another_kind_of_key_is_refused(make: type[ec.EllipticCurvePrivateKey]) -> None:
    with pytest.raises(RequestRefused, match="the key is not"):
        read_request(requested(make()))


def test_a_request_that_another_key_signed_is_refused() -> None:
    """Or a certificate could be had for a key that the caller does not have."""
    one, other = (requested(ed25519.Ed25519PrivateKey.generate()) for _ in range(2))
    ours, theirs = (x509.load_pem_x509_csr(text.encode()) for text in (one, other))
    forged = ours.public_bytes(Encoding.DER).replace(ours.signature, theirs.signature)
    pem = x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM).decode()
    with pytest.raises(RequestRefused, match="not signed by its own key"):
        read_request(pem)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a certificate request"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "not a certificate request"),
        ("é", "PEM text"),
        ("A" * (MAX_CHARS + 1), "at most"),
    ],
)
def test_what_is_no_request_is_refused(text: str, why: str) -> None:
    with pytest.raises(RequestRefused, match=why) as caught:
        read_request(text)
    assert "AAAA" not in str(caught.value)


def test_what_stands_around_a_request_goes_no_further() -> None:
    made = make_request(ec.generate_private_key(ec.SECP256R1()))
    assert read_request(f"a note\n{made.pem}and another\n") == made
