"""All signing keys that this installation ever had, as one public document (`stepgrant._receipt_keys` reads it).

{v: 1, kind: "stepgrant.keys", log, keys: [{purpose, kid, jwk, number, since, signs_from, until, revoked_at,
revoked_size, vkey?}]}: times in ms, null where it does not apply; `vkey` (C2SP) of keys for tree heads. With it, old
receipts verify for ever: keep the newest one. It holds no secret, but who can change it decides what is believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stepgrant import tlog
from stepgrant._receipt_keys import KIND, PURPOSE, VERSION
from stepgrant.canonical import b64u_decode

if TYPE_CHECKING:
    from stepgrant_broker.domain.keys import SigningKey


def export(keys: Iterable[SigningKey], origin: str) -> dict[str, Any]:
    """The document; `origin` is the log's name. Raises `LogPolicyInvalid` for a name that no note can carry."""
    return {"v": VERSION, "kind": KIND, "log": origin, "keys": [_told(key, origin) for key in keys]}


def vkey_of(key: SigningKey, origin: str) -> str:
    """The verifier key of a key for tree heads, as one line."""
    return tlog.note_key(origin, tlog.ED25519, b64u_decode(str(key.jwk["x"]))).vkey


def _told(key: SigningKey, origin: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "purpose": key.purpose,
        "kid": key.kid,
        "jwk": dict(key.jwk),
        "number": key.number,
        "since": key.since,
        "signs_from": key.signs_from,
        "until": key.until,
        "revoked_at": key.revoked_at,
        "revoked_size": key.revoked_size,
    }
    return {**told, "vkey": vkey_of(key, origin)} if key.purpose == PURPOSE else told
