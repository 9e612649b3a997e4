"""The private key behind a certificate: made here for one attempt of one step, and known to nobody else.

Rules:
* It never leaves the process by itself: only its certificate request is sent. Masked, neither picklable nor copyable.
* `ssl` reads keys from files only. What it is given is encrypted under a password that exists for that one reading, and
  is in memory where the system can do that (memfd), else in a file of mode 0600 that is gone again at once.
* A tool may write its key into its result; the forms in which it would do that are known to the tripwire.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from stepgrant._csr import CertificateRequest, make_request
from stepgrant.canonical import b64u


class OwnKey:
    """A P-256 key with its certificate request."""

    __slots__ = ("private", "request")

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.request: CertificateRequest = make_request(self.private)

    def texts(self) -> list[str]:
        """The forms in which this key could stand in a text."""
        scalar = self.private.private_numbers().private_value.to_bytes(32, "big")
        forms = (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
        pems = [self.private.private_bytes(Encoding.PEM, form, NoEncryption()).decode().strip() for form in forms]
        bodies = ["".join(pem.splitlines()[1:-1]) for pem in pems]
        return [*pems, *bodies, scalar.hex(), b64u(scalar), str(int.from_bytes(scalar, "big"))]

    def client_context(self, certificates: str, cafile: str | os.PathLike[str] | None) -> ssl.SSLContext:
        """A context for a client that presents these certificates (PEM, the key's own first)."""
        context = ssl.create_default_context(cafile=None if cafile is None else os.fspath(cafile))
        password = secrets.token_hex(32).encode()
        sealed = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        with _as_file(sealed + certificates.encode("ascii")) as path:
            context.load_cert_chain(path, password=password)
        return context

    def __repr__(self) -> str:
        return f"OwnKey({self.request.key}, <masked>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key can be neither pickled nor copied")


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path at which these bytes can be read, while the block runs."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with os.fdopen(os.memfd_create("stepgrant"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile(prefix="stepgrant-") as file:
        file.write(data)
        file.flush()
        yield file.name
