"""The public keys that a receipt is verified with: a JWKS (RFC 7517), one JWK, or C2SP verifier keys (vkey lines).

Only Ed25519 keys sign heads, so keys of other types in a JWKS are passed over. A private key is refused: somebody gave
a secret away, and verifying with it would hide that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from stepgrant._keys import PRIVATE_MEMBERS, JoseError, VerifyingKey, verifying_key
from stepgrant._receipt_errors import KeysUnreadable
from stepgrant.canonical import CanonicalError, JsonValue, b64u, loads

Keys: TypeAlias = "Mapping[str, JsonValue] | bytes | str"

_VKEY_PARTS: Final = 3
_ED25519: Final = b"\x01"
_ED25519_BYTES: Final = 32


def read_keys(keys: Keys) -> dict[str, VerifyingKey]:
    """Ed25519 keys by key id. Raises `KeysUnreadable`."""
    found: dict[str, VerifyingKey] = {}
    pairs = _from_jwks(keys) if isinstance(keys, Mapping) else _from_text(keys)
    for kid, key in pairs:
        if found.setdefault(kid, key) != key:
            raise KeysUnreadable("two keys have one kid", reason="keys_ambiguous")
    if not found:
        raise KeysUnreadable("there is no Ed25519 public key", reason="keys_empty")
    return found


def _from_text(text: bytes | str) -> Iterator[tuple[str, VerifyingKey]]:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if data.lstrip()[:1] != b"{":
        yield from _from_vkeys(data)
        return
    try:
        value = loads(data)
    except CanonicalError as error:
        raise KeysUnreadable(f"the key file is not strict JSON ({error.code})", reason="keys_unreadable") from None
    yield from _from_jwks(value if isinstance(value, dict) else {})


def _from_jwks(value: Mapping[str, JsonValue]) -> Iterator[tuple[str, VerifyingKey]]:
    listed = value.get("keys", [value])
    for jwk in listed if isinstance(listed, list) else [listed]:
        if not isinstance(jwk, dict):
            raise KeysUnreadable("a key is not a JSON object", reason="keys_unreadable")
        if not PRIVATE_MEMBERS.isdisjoint(jwk):
            raise KeysUnreadable(
                "this is a private key; keep it secret and verify with the public one", reason="keys_private"
            )
        if jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519":
            yield _ed25519(jwk)


def _ed25519(jwk: Mapping[str, JsonValue]) -> tuple[str, VerifyingKey]:
    try:
        key = verifying_key(jwk)
    except JoseError as error:
        raise KeysUnreadable(f"a key is refused ({error.reason})", reason="keys_unreadable") from None
    kid = jwk.get("kid", key.jkt)
    if not isinstance(kid, str):
        raise KeysUnreadable("a kid is not text", reason="keys_unreadable")
    return kid, key


def _from_vkeys(data: bytes) -> Iterator[tuple[str, VerifyingKey]]:
    """Lines `name+hex(keyID)+base64(type‖pub)` (C2SP signed-note); the kid is the key's RFC 7638 thumbprint."""
    for line in data.splitlines():
        parts = line.strip().split(b"+", _VKEY_PARTS - 1)
        if not line.strip():
            continue
        if len(parts) != _VKEY_PARTS:
            raise KeysUnreadable("neither a JWKS nor a line name+hash+key", reason="keys_unreadable")
        name, key_id, text = parts
        try:
            typed = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise KeysUnreadable("a vkey's last part is not base64", reason="keys_unreadable") from None
        if hashlib.sha256(name + b"\n" + typed).hexdigest()[:8].encode() != key_id:
            raise KeysUnreadable("a vkey's hash is not the one of its name and key", reason="keys_unreadable")
        if typed[:1] == _ED25519 and len(typed) == 1 + _ED25519_BYTES:
            _, key = _ed25519({"kty": "OKP", "crv": "Ed25519", "x": b64u(typed[1:])})
            yield key.jkt, key
