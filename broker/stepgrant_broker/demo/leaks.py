"""Looking for secrets where none may rest: database, logs, books, output.

Rules: what is known is looked for as it is (private keys, operator tokens); what the demo never sees, the tokens and
proofs in the memories of agents and targets, is looked for by its shape. Files that are there to hold a key must be
readable by their owner only.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from stepgrant.canonical import CanonicalError, b64u_decode
from stepgrant_broker.demo.checks import Finding

TOKEN: Final = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{40,}")
"""A signed token: grant, access token, assertion or proof."""
PERSON: Final = re.compile(rb"sgo_[A-Za-z0-9_-]{16,}")
PRIVATE: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
SHAPES: Final = {"a signed token": TOKEN, "an operator token": PERSON, "a private key": PRIVATE}
SECRET_MEMBERS: Final = frozenset({"d", "k", "token"})
"""The members of a JWK that are secret (RFC 7518), and a person's token."""


def secrets_in(path: Path) -> set[bytes]:
    """What is secret in a key file, as it is written there and, where it is base64url, as the bytes behind it."""
    text = path.read_text("ascii").strip()
    try:
        members = set(_secret_members(json.loads(text)))
    except ValueError:
        members = {text}
    return {form for member in members for form in _forms(member)}


def _forms(secret: str) -> Iterator[bytes]:
    yield secret.encode("ascii")
    try:
        yield b64u_decode(secret)
    except CanonicalError:
        return


def _secret_members(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        for name, member in value.items():
            if name in SECRET_MEMBERS and isinstance(member, str):
                yield member
            else:
                yield from _secret_members(member)
    elif isinstance(value, list):
        for member in value:
            yield from _secret_members(member)


def leaks_in(data: bytes, known: Collection[bytes]) -> list[str]:
    """What is found in these bytes: `a known secret`, or a shape."""
    found = ["a known secret" for secret in known if secret and secret in data]
    return found + [what for what, shape in SHAPES.items() if shape.search(data)]


def nothing_leaked(folder: Path, key_files: Collection[Path]) -> Finding:
    """No file below `folder` but the key files holds a secret, and only their owner can read those."""
    secrets = {path: secrets_in(path) for path in key_files}
    bad = [f"{path.name} holds no secret to look for" for path, found in secrets.items() if not found]
    known = {secret for found in secrets.values() for secret in found}
    looked = size = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path in key_files:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                bad.append(f"{path.name} can be read by others")
            continue
        data = path.read_bytes()
        looked, size = looked + 1, size + len(data)
        bad += [f"{what} in {path.relative_to(folder)}" for what in leaks_in(data, known)]
    told = f"{looked} files, {size // 1024} KiB, {len(known)} known secrets and everything shaped like a token"
    return Finding(not bad and looked > 0 and bool(known), "; ".join(bad) or told)
