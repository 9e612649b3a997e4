"""Certificate requests (PKCS #10, RFC 2986): what an agent sends when it wants a certificate for a key of its own.

Rules:
* The request carries a public key and the proof that whoever asks has the private one, and nothing else that counts:
  names come from policy, so a request of ours has an empty subject and no extension.
* One key, one short name: `sha-256:` of its SubjectPublicKeyInfo (DER). The ledger records it with the grant, and the
  certificate that comes back must be over the key of that name.
* P-256 and Ed25519, as everywhere here; for agents in other languages also P-384 and RSA of 2048 to 4096 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stepgrant import canonical

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

MAX_CHARS: Final = 8_192
_RSA_BITS: Final = range(2048, 4097)


class RequestRefused(Exception):
    """A certificate request is none, or not one to sign. The text says why and holds nothing of the request."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request that was read: its PEM text, and its public key's name (`sha-256:…`)."""

    pem: str
    key: str


def key_name(key: CertificatePublicKeyTypes) -> str:
    """`sha-256:` and base64url of the hash of the key's SubjectPublicKeyInfo."""
    return canonical.digest_bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def make_request(key: ec.EllipticCurvePrivateKey) -> CertificateRequest:
    """A request for this key, without any name in it."""
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return CertificateRequest(made.public_bytes(Encoding.PEM).decode("ascii"), key_name(made.public_key()))


def read_request(pem: str) -> CertificateRequest:
    """The request in this PEM text. Raises `RequestRefused`: not one request, a weak key, or not signed by its key."""
    if len(pem) > MAX_CHARS or not pem.isascii():
        raise RequestRefused(f"a certificate request is PEM text of at most {MAX_CHARS} characters")
    try:
        found = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = found.public_key()
        signed = found.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        # The parser's own text may show bytes of the request.
        raise RequestRefused("this is not a certificate request in PEM (PKCS #10)") from None
    if not _strong(key):
        raise RequestRefused("the key is not P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits")
    if not signed:
        raise RequestRefused("the request is not signed by its own key")
    # Written anew: whatever stood around the one request in the text goes no further.
    return CertificateRequest(found.public_bytes(Encoding.PEM).decode("ascii"), key_name(key))


def _strong(key: CertificatePublicKeyTypes) -> bool:
    match key:
        case ec.EllipticCurvePublicKey():
            return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
        case rsa.RSAPublicKey():
            return key.key_size in _RSA_BITS
        case _:
            return isinstance(key, ed25519.Ed25519PublicKey)
