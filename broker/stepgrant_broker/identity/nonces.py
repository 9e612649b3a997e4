"""DPoP nonces of the server (RFC 9449 §8) without a memory: all replicas make and accept the same ones.

A nonce is `HMAC(key, number of the epoch)`, and one of this or the last epoch of 5 minutes is current. It proves that a
proof was made recently, whatever the agent's clock says, and makes proofs that were prepared beforehand worthless. It
does not make a proof unique: a proof's `jti` is to be remembered until no nonce it could carry is current any more.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, NoReturn

from stepgrant.canonical import b64u
from stepgrant_broker.domain.errors import NonceRequired

LABEL: Final = b"stepgrant dpop nonce v1"
"""For `LocalWrap.derive`: the key is for this alone."""
_NONCE_BYTES: Final = 16
_MIN_KEY_BYTES: Final = 32


class Nonces:
    """Makes and checks nonces. Times in seconds since the epoch.

    Args:
        key: 32 secret bytes that all replicas share.
        epoch_s: how long one nonce is handed out; it is accepted for one more.
    """

    def __init__(self, key: bytes, *, epoch_s: int = 300) -> None:
        if len(key) < _MIN_KEY_BYTES or epoch_s < 1:
            raise ValueError("the nonce key has at least 32 bytes, an epoch at least a second")
        self._key = key
        self._epoch_s = epoch_s
        self._newest: tuple[int | None, str] = (None, "")
        self.lifetime_s = 2 * epoch_s
        """The longest time for which one nonce can be used."""

    def current(self, now_s: float) -> str:
        """The nonce to hand out now."""
        epoch = int(now_s // self._epoch_s)
        known, nonce = self._newest
        if known != epoch:
            nonce = self._make(epoch)
            self._newest = (epoch, nonce)
        return nonce

    def check(self, nonce: str | None, now_s: float) -> None:
        """Raises `NonceRequired` unless it is the nonce of this epoch or of the last one."""
        if nonce is None:
            raise NonceRequired("the proof needs the nonce that this answer brings")
        epoch = int(now_s // self._epoch_s)
        given = nonce.encode("utf-8", "replace")
        # Both are compared always, in constant time.
        matches = [hmac.compare_digest(given, self._make(number).encode()) for number in (epoch, epoch - 1)]
        if not any(matches):
            raise NonceRequired("the proof's nonce is not current; take the one that this answer brings")

    def _make(self, epoch: int) -> str:
        message = LABEL + epoch.to_bytes(8, "big", signed=True)
        return b64u(hmac.digest(self._key, message, hashlib.sha256)[:_NONCE_BYTES])

    def __repr__(self) -> str:
        """Without the key."""
        return f"Nonces(epoch_s={self._epoch_s}, <masked>)"

    def __reduce__(self) -> NoReturn:
        """The key stays in the process."""
        raise TypeError("nonces can be neither pickled nor copied")
