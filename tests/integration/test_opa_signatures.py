"""Signed bundles in OPA's own hands: it serves what we signed, and nothing unsigned, changed, or signed by others."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from commandline import Done, caller
from opas import Serve, serving
from policies import ALLOW, one
from stepgrant import canonical
from stepgrant.cli.exits import ExitCode
from stepgrant_broker.policy.bundle import Bundle, from_files, read_starter
from stepgrant_broker.policy.opa_bundle import opa_bundle
from stepgrant_broker.policy.opa_signing import NoSigningKey, SigningKey

EC = ec.generate_private_key(ec.SECP256R1())
ODD: dict[str, Any] = {
    "\u2028": ["\u2029", 0.1, 1e-7, -1.5, None, True],
    "\U0001f600": {"\uffff": '\x01\b\f\t"\\/<&>\x7f'},
    "b": "ä",
}


def private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, folder: Path) -> Path:
    file = folder / "public.pem"
    file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return file


def serves(opa_server: Serve, packed: bytes, folder: Path, algorithm: str = "ES256") -> bool:
    options = (f"--verification-key={folder / 'public.pem'}", f"--signing-alg={algorithm}")
    with serving(opa_server, packed, folder, *options) as opa:
        return httpx.get(f"{opa.url}/v1/data/stepgrant", trust_env=False).status_code == 200


def refuses(opa_server: Serve, packed: bytes, folder: Path) -> None:
    from stepgrant_services import ServiceError  # noqa: PLC0415 - not there with the base install

    with pytest.raises(ServiceError, match="load error: bundle"):
        serves(opa_server, packed, folder)


@pytest.mark.parametrize(
    "bundle", [read_starter(), from_files({**one(ALLOW).files, "odd/data.json": canonical.dumps(ODD)})]
)
def test_opa_serves_what_was_signed(opa_server: Serve, tmp_path: Path, bundle: Bundle) -> None:
    public(EC, tmp_path)
    assert serves(opa_server, opa_bundle(bundle, SigningKey(private(EC))), tmp_path)


def test_rsa(opa_server: Serve, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    public(key, tmp_path)
    assert serves(opa_server, opa_bundle(one(ALLOW), SigningKey(private(key))), tmp_path, "RS256")


def test_opa_refuses_everything_else(opa_server: Serve, tmp_path: Path) -> None:
    public(EC, tmp_path)
    signed = opa_bundle(one(ALLOW), SigningKey(private(EC)))
    other = SigningKey(private(ec.generate_private_key(ec.SECP256R1())))
    refuses(opa_server, opa_bundle(one(ALLOW)), tmp_path)
    refuses(opa_server, opa_bundle(one(ALLOW), other), tmp_path)
    refuses(opa_server, changed(signed), tmp_path)


def changed(packed: bytes) -> bytes:
    """The bundle with one more reason in its policy."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(packed)) as old, tarfile.open(fileobj=out, mode="w:gz") as new:
        for entry in old.getmembers():
            raw = (old.extractfile(entry) or io.BytesIO()).read().replace(b"probe.read", b"bribe.read")
            new.addfile(entry, io.BytesIO(raw))
    return out.getvalue()


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no key",
        private(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - that is the point
        private(ec.generate_private_key(ec.SECP384R1())),
        private(ed25519.Ed25519PrivateKey.generate()),
        EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")),
    ],
)
def test_other_keys_cannot_sign(pem: bytes) -> None:
    with pytest.raises(NoSigningKey) as caught:
        SigningKey(pem)
    assert "BEGIN" not in str(caught.value)


def test_the_command_signs(
    capsys: pytest.CaptureFixture[str], opa_server: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[..., Done] = caller(capsys, [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.pem").write_bytes(private(EC))
    public(EC, tmp_path)
    assert run("policy", "build", "-o", "out.tar.gz", "--signing-key", "key.pem").code == 0
    assert serves(opa_server, (tmp_path / "out.tar.gz").read_bytes(), tmp_path)
    assert run("policy", "build", "-o", "x.tar.gz", "--signing-key", "missing.pem").code == ExitCode.NOT_FOUND
    done = run("policy", "build", "-o", "x.tar.gz", "--signing-key", "out.tar.gz")
    assert "cannot sign: it is no private key" in done.err
    assert not (tmp_path / "x.tar.gz").exists()
