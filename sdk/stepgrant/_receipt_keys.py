"""The public keys to verify with: what `stepgrant keys export` gives, a JWKS (RFC 7517), one JWK, or vkey lines (C2SP).

Only Ed25519 keys sign heads, so keys of other types in a JWKS are passed over. A private key is refused: somebody gave
a secret away, and verifying with it would hide that.

Only the export knows what was revoked: {v: 1, kind: "stepgrant.keys", log, keys: [{purpose, kid, jwk, number, since,
signs_from, until, revoked_at, revoked_size, vkey?}]}, times in ms, null where it does not apply. Keys of other purposes
than `heads` are passed over: a grant's key must never vouch for a receipt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from stepgrant._keys import PRIVATE_MEMBERS, JoseError, VerifyingKey, verifying_key
from stepgrant._receipt_errors import KeysUnreadable
from stepgrant.canonical import CanonicalError, JsonValue, b64u, loads

KIND: Final = "stepgrant.keys"
VERSION: Final = 1
PURPOSE: Final = "heads"
Keys: TypeAlias = "Mapping[str, JsonValue] | bytes | str"

_VKEY_PARTS: Final = 3
_ED25519: Final = b"\x01"
_ED25519_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Revoked:
    """Since when (ms) nothing signed by a key counts, but for tree heads up to `size` that witnesses saw before."""

    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Trust:
    """Ed25519 keys by key id, and which of them were revoked."""

    keys: Mapping[str, VerifyingKey]
    revoked: Mapping[str, Revoked] = field(default_factory=dict)


def read_keys(keys: Keys) -> Mapping[str, VerifyingKey]:
    """Ed25519 keys by key id. Raises `KeysUnreadable`."""
    return read_trust(keys).keys


def read_trust(keys: Keys) -> Trust:
    """Ed25519 keys and what was revoked. Raises `KeysUnreadable`."""
    value = keys if isinstance(keys, Mapping) else _parsed(keys)
    found: dict[str, VerifyingKey] = {}
    revoked: dict[str, Revoked] = {}
    if isinstance(value, bytes):
        pairs = _from_vkeys(value)
    elif value.get("kind") == KIND:
        pairs = _from_export(value, revoked)
    else:
        pairs = _from_jwks(value)
    for kid, key in pairs:
        if found.setdefault(kid, key) != key:
            raise KeysUnreadable("two keys have one kid", reason="keys_ambiguous")
    if not found:
        raise KeysUnreadable("there is no Ed25519 public key", reason="keys_empty")
    return Trust(found, revoked)


def _parsed(text: bytes | str) -> Mapping[str, JsonValue] | bytes:
    """The JSON object in the text; the text itself if it is none."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if data.lstrip()[:1] != b"{":
        return data
    try:
        value = loads(data)
    except CanonicalError as error:
        raise KeysUnreadable(f"the key file is not strict JSON ({error.code})", reason="keys_unreadable") from None
    return value if isinstance(value, dict) else {}


def _from_export(value: Mapping[str, JsonValue], revoked: dict[str, Revoked]) -> Iterator[tuple[str, VerifyingKey]]:
    """The keys for heads; fills `revoked`."""
    listed = value.get("keys")
    if value.get("v") != VERSION or not isinstance(listed, list):
        raise KeysUnreadable("not an export of keys of a version that is known here", reason="keys_unreadable")
    for one in listed:
        jwk = one.get("jwk") if isinstance(one, dict) else None
        if not isinstance(one, dict) or not isinstance(jwk, dict):
            raise KeysUnreadable("a key of the export has no jwk", reason="keys_unreadable")
        if one.get("purpose") != PURPOSE:
            continue
        for kid, key in _from_jwks(jwk):
            if not kid == one.get("kid") == key.jkt:
                raise KeysUnreadable("a key's kid is not its thumbprint", reason="keys_unreadable")
            over = _revoked(one)
            if over is not None:
                # Said twice, the stricter one holds: nobody takes a revocation back by another line.
                known = revoked.get(kid, over)
                revoked[kid] = Revoked(min(over.at, known.at), min(over.size, known.size))
            yield kid, key


def _revoked(one: Mapping[str, JsonValue]) -> Revoked | None:
    at, size = one.get("revoked_at"), one.get("revoked_size")
    if at is None and size is None:
        return None
    if not _is_whole(at) or not _is_whole(size):
        raise KeysUnreadable("a revoked key has the time and the log's size", reason="keys_unreadable")
    return Revoked(int(str(at)), int(str(size)))


def _is_whole(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


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
