"""`curl` and `openssl` where a machine has none: git, make and Python are all that the tests may need.

What the guides type runs with the real programs wherever they are there. These do, with Python's own TLS and
`cryptography`, exactly what the guides ask of them, and refuse everything else. `openssl verify` is not among it:
whoever connects verifies the certificate.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

REFUSED: Final = 22
NOT_REACHED: Final = 7


def put_missing(folder: Path) -> None:
    """Put those that this machine lacks into a folder that comes last on a path."""
    for name in ("curl", "openssl"):
        if shutil.which(name) is None:
            program = folder / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n', encoding="utf-8")
            program.chmod(0o700)


def curl(arguments: list[str]) -> int:
    """`curl -fs [--cacert FILE] URL`."""
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("-fs", action="store_true", required=True)
    parser.add_argument("--cacert")
    parser.add_argument("url")
    asked = parser.parse_args(arguments)
    trusted = ssl.create_default_context(cafile=asked.cacert) if asked.url.startswith("https:") else None
    try:
        with urllib.request.urlopen(asked.url, timeout=30, context=trusted) as answer:  # noqa: S310 - a guide's own URL
            sys.stdout.buffer.write(answer.read())
    except urllib.error.HTTPError:
        return REFUSED
    except OSError:
        return NOT_REACHED
    return 0


def openssl(arguments: list[str]) -> int:
    """`openssl rand -hex N`, and `openssl req -x509` as `deploy/README.md` has it."""
    if arguments[:2] == ["rand", "-hex"]:
        sys.stdout.write(secrets.token_hex(int(arguments[2])) + "\n")
        return 0
    parser = argparse.ArgumentParser(prog="openssl req -x509", allow_abbrev=False)
    for name in ("-newkey", "-pkeyopt", "-subj", "-keyout", "-out"):
        parser.add_argument(name, required=True)
    parser.add_argument("-days", type=int, required=True)
    parser.add_argument("-nodes", action="store_true", required=True)
    parser.add_argument("-addext", action="append", required=True)
    if arguments[:2] != ["req", "-x509"]:
        parser.error("only req -x509 and rand -hex are known here")
    asked = parser.parse_args(arguments[2:])
    if (asked.newkey, asked.pkeyopt) != ("ec", "ec_paramgen_curve:prime256v1"):
        parser.error("only P-256 is known here")
    key = ec.generate_private_key(ec.SECP256R1())
    rests = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    Path(asked.keyout).touch(0o600)
    Path(asked.keyout).write_bytes(rests)
    Path(asked.out).write_bytes(_certificate(key, asked).public_bytes(serialization.Encoding.PEM))
    return 0


def _certificate(key: ec.EllipticCurvePrivateKey, asked: argparse.Namespace) -> x509.Certificate:
    name = x509.Name.from_rfc4514_string(asked.subj.removeprefix("/"))
    said = dict(one.split("=", 1) for one in asked.addext)
    if said.keys() != {"subjectAltName", "keyUsage"} or said["keyUsage"] != "critical,digitalSignature,keyCertSign":
        raise SystemExit("openssl: these extensions are not known here")
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=asked.days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    names = [x509.DNSName(said["subjectAltName"].removeprefix("DNS:"))]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    allowed = x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage)
    return builder.add_extension(allowed, critical=True).sign(key, hashes.SHA256())


if __name__ == "__main__":
    sys.exit({"curl": curl, "openssl": openssl}[sys.argv[1]](sys.argv[2:]))
