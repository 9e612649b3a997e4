"""TLS on loopback with client certificates: a small CA, and a server that says whom it was shown."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


def named(name: str) -> x509.Name:
    """A subject with only a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def for_a_ca() -> x509.KeyUsage:
    """What a CA's key may be used for: Python 3.13 trusts none that does not say so (`VERIFY_X509_STRICT`)."""
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    never = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **never)


class Authority:
    """A CA that signs what a test asks for."""

    def __init__(self, name: str = "test CA") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = named(name)
        self.certificate = (
            self._builder(self.key.public_key(), self.name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(for_a_ca(), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def signed(self, csr: str, *uris: str) -> str:
        """A certificate over a request's key with these URIs."""
        key = x509.load_pem_x509_csr(csr.encode()).public_key()
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        made = self._builder(key, x509.Name([])).add_extension(names, critical=True).sign(self.key, hashes.SHA256())
        return made.public_bytes(Encoding.PEM).decode()

    def server(self, folder: Path) -> Path:
        """A file with key and certificate of a server on loopback."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = self._builder(key.public_key(), named("server")).add_extension(names, critical=False)
        path = folder / "server.pem"
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(pem + made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return path

    def _builder(self, key: Any, subject: x509.Name) -> x509.CertificateBuilder:  # noqa: ANN401 - any public key
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )


@dataclass(frozen=True)
class MutualTls:
    """A running server. `ca_file` signed the server; what it answers is the client's certificate as `ssl` reads it."""

    url: str
    ca_file: Path


class _Handler(BaseHTTPRequestHandler):
    said: Mapping[str, bytes] | None = None

    def do_GET(self) -> None:
        connection = self.connection
        assert isinstance(connection, ssl.SSLSocket)
        text = json.dumps(connection.getpeercert()).encode() if self.said is None else self.said[self.path]
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, handler: type[_Handler] = _Handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        # The handshake is done at the first read, in the connection's own thread.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client without a certificate is what some tests are about."""


@contextmanager
def mutual_tls(folder: Path, clients: str) -> Iterator[MutualTls]:
    """A server that takes only clients with a certificate of the CA `clients` (PEM)."""
    context, ca_file = _context(folder)
    context.load_verify_locations(cadata=clients)
    context.verify_mode = ssl.CERT_REQUIRED
    with _serving(_Server(context)) as url:
        yield MutualTls(url, ca_file)


@contextmanager
def behind_tls(folder: Path, said: Mapping[str, bytes]) -> Iterator[MutualTls]:
    """A server that says this, by path, to whoever trusts its CA."""
    context, ca_file = _context(folder)
    with _serving(_Server(context, type("_Saying", (_Handler,), {"said": said}))) as url:
        yield MutualTls(url, ca_file)


def _context(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Of a server with a certificate, and the file of the CA that signed it."""
    servers = Authority("CA of the server")
    ca_file = folder / "servers.pem"
    ca_file.write_text(servers.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(servers.server(folder))
    return context, ca_file


@contextmanager
def _serving(server: _Server) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
