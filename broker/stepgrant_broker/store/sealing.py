"""Payloads at rest: AES-256-GCM under a key that is derived from the key of their chain (`domain.chain_keys`).

Rules:
* What is sealed is bound to its place by associated data: tenant, chain, commitment, field and form. A body that was
  changed, or put behind another commitment, does not open; nothing of it is used.
* A nonce is 96 random bits. A chain seals far fewer values than the 2^32 that allows.
* Rows of before (`key_id` NULL) are read as they are; nothing is written like that by a store that has keys.
* Erasure drops a chain's key first of all (`erasing.py`): what is sealed and has no key is refused, whatever left it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from stepgrant_broker.domain import aad
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.commitments import Kept, Payload
from stepgrant_broker.domain.errors import PayloadDamaged, StoreUnavailable
from stepgrant_broker.domain.writes import ChainKey
from stepgrant_broker.store.faults import WriteSetMalformed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stepgrant_broker.domain.ports import KeyWrap
    from stepgrant_broker.domain.writes import WriteSet

KEY_ID: Final = "chain-v1"
NONCE_BYTES: Final = 12


class Clear:
    """The seal of a store without keys: it writes in clear, and does not open what is sealed."""

    def into(self, writes: WriteSet) -> WriteSet:
        """The set as it is."""
        return writes

    def sealed(self, key: ChainKey, payloads: Iterable[Payload]) -> list[Kept]:
        """Raises `StoreUnavailable`: there are no keys."""
        raise StoreUnavailable("nothing can be sealed by a store that was opened without keys")

    def opened(self, key: ChainKey | None, kept: Iterable[Kept]) -> dict[str, Payload]:
        """The payloads by commitment. Raises `StoreUnavailable` for one that is sealed."""
        found = {}
        for one in kept:
            if one.key_id is not None:
                raise StoreUnavailable("payloads are sealed here, and this store was opened without keys")
            found[one.c] = Payload(one.c, one.field, one.form, one.body)
        return found


class Seal(Clear):
    """Seals and opens with the chains' keys. `keys` is shared with whoever else unwraps them in this process."""

    def __init__(self, wrap: KeyWrap, keys: Keys | None = None) -> None:
        self._wrap = wrap
        self._keys = keys if keys is not None else Keys()

    def into(self, writes: WriteSet) -> WriteSet:
        """The set with its payloads sealed. Raises `WriteSetMalformed` for payloads without a key."""
        if writes.destroy and writes.run is not None:
            self._keys.forget(writes.tenant, writes.run)
        clear = [payload for payload in writes.payloads if isinstance(payload, Payload)]
        if not clear:
            return writes
        new = (row for row in writes.rows if isinstance(row, ChainKey) and row.run == (writes.run or ""))
        key = writes.key or next(new, None)
        if key is None:
            raise WriteSetMalformed("payloads without the key of their chain")
        kept = [payload for payload in writes.payloads if isinstance(payload, Kept)]
        return replace(writes, payloads=(*kept, *self.sealed(key, clear)))

    def sealed(self, key: ChainKey, payloads: Iterable[Payload]) -> list[Kept]:
        """The payloads as they rest."""
        cipher = self._cipher(key)
        return [_sealed(cipher, key, payload) for payload in payloads]

    def opened(self, key: ChainKey | None, kept: Iterable[Kept]) -> dict[str, Payload]:
        """The payloads by commitment. Raises `PayloadDamaged`, and what unwrapping the key raises."""
        cipher: AESGCM | None = None
        found = {}
        for one in kept:
            body = one.body
            if one.key_id is not None:
                if key is None:
                    raise PayloadDamaged(one.c, one.field)
                cipher = cipher or self._cipher(key)
                body = _opened(cipher, key, one)
            found[one.c] = Payload(one.c, one.field, one.form, body)
        return found

    def _cipher(self, key: ChainKey) -> AESGCM:
        cipher: AESGCM = self._keys.secret(key, self._wrap).sealing(AESGCM)
        return cipher


def _sealed(cipher: AESGCM, key: ChainKey, payload: Payload) -> Kept:
    nonce = os.urandom(NONCE_BYTES)
    c, field, form = payload.c, payload.field, payload.form
    body = cipher.encrypt(nonce, payload.body, aad.payload(key.tenant, key.run, c, field, form))
    return Kept(c, field, form, body, KEY_ID, nonce)


def _opened(cipher: AESGCM, key: ChainKey, kept: Kept) -> bytes:
    try:
        if kept.key_id != KEY_ID:
            raise PayloadDamaged(kept.c, kept.field)
        place = aad.payload(key.tenant, key.run, kept.c, kept.field, kept.form)
        return cipher.decrypt(kept.nonce or b"", kept.body, place)
    except (InvalidTag, ValueError):
        raise PayloadDamaged(kept.c, kept.field) from None
