"""Commitments: how an entry speaks of a value without showing it (`protocol.md` §6).

`x_c = b64u(HMAC-SHA-256(r, value))` with `r = HMAC-SHA-256(k_run, field || 0x00 || value)` and value = its JCS bytes.
A receipt discloses field, value and `r`; it never needs `k_run`. Destroying `k_run` makes guessing worthless.
The same field and value under one `k_run` give the same commitment, so that equality can be checked blind.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn

import msgspec

from stepgrant import canonical

_DATA_KEY: Final = b"stepgrant payload key v1"


class _Unshown(msgspec.Struct, frozen=True):
    """Shows nothing of what it holds."""

    def __repr__(self) -> str:
        return object.__repr__(self)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Payload(_Unshown, frozen=True):
    """A value behind a commitment, at rest. `form` says how the committed value follows from `body`.

    `value`: body is the value's JCS bytes. `preimage`: the value is the `sha-256:…` digest of body.
    """

    c: str
    field: str
    form: Literal["value", "preimage"]
    body: bytes

    def value(self) -> bytes:
        """The JCS bytes that the commitment commits to."""
        return self.body if self.form == "value" else canonical.dumps(canonical.digest_bytes(self.body))


class Kept(_Unshown, frozen=True):
    """A payload as it rests. `body` is encrypted under the key `key_id` of its chain, or in clear (`None`)."""

    c: str
    field: str
    form: Literal["value", "preimage"]
    body: bytes
    key_id: str | None = None
    nonce: bytes | None = None


def opening(key: bytes, name: str, value: bytes) -> bytes:
    """The `r` that opens one commitment and tells nothing of others."""
    return ChainSecret(key).opening(name, value)


def data_key(chain_key: bytes) -> bytes:
    """The key of a chain's payloads (32 bytes)."""
    return hmac.digest(chain_key, _DATA_KEY, hashlib.sha256)


class ChainSecret:
    """A chain's plain key, and what is made from it once instead of in every call. All of it dies with the key."""

    __slots__ = ("_mac", "_sealing", "key", "peeked")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._mac = hmac.new(key, digestmod="sha256")
        self._sealing: Any = None
        self.peeked = ("", b"", "")
        """The last field, value and commitment that were asked for: of a run, its holder in each call."""

    def opening(self, name: str, value: bytes) -> bytes:
        """The `r` that opens one commitment and tells nothing of others."""
        mac = self._mac.copy()  # the key's two blocks are hashed already (RFC 2104 §4)
        mac.update(name.encode() + b"\x00" + value)
        return mac.digest()

    def sealing(self, make: Callable[[bytes], Any]) -> Any:  # noqa: ANN401 - the cipher of whoever seals
        """What `make` gives for the data key of this chain."""
        if self._sealing is None:
            self._sealing = make(data_key(self.key))
        return self._sealing

    def __reduce__(self) -> NoReturn:
        raise TypeError("a chain's key can be neither pickled nor copied")


class Committer:
    """Commits under one run's (or tenant's) key and collects the payloads that belong to it."""

    __slots__ = ("payloads", "secret")

    def __init__(self, secret: ChainSecret | bytes) -> None:
        self.secret = secret if isinstance(secret, ChainSecret) else ChainSecret(secret)
        self.payloads: dict[str, Payload] = {}

    def __reduce__(self) -> NoReturn:
        raise TypeError("a chain's key can be neither pickled nor copied")

    def _commit(self, name: str, value: bytes) -> str:
        return canonical.b64u(hmac.digest(self.secret.opening(name, value), value, "sha256"))

    def peek(self, name: str, value: canonical.JsonValue) -> str:
        """The commitment alone; nothing is kept."""
        secret, body = self.secret, canonical.dumps(value)
        field, known, c = secret.peeked
        if body != known or name != field:
            c = self._commit(name, body)
            secret.peeked = (name, body, c)
        return c

    def value(self, name: str, value: canonical.JsonValue) -> str:
        """Commit to a value and keep it as a payload."""
        body = canonical.dumps(value)
        c = self._commit(name, body)
        self.payloads[c] = Payload(c, name, "value", body)
        return c

    def digest(self, name: str, preimage: bytes) -> str:
        """Commit to the digest of `preimage` and keep the preimage."""
        c = self._commit(name, canonical.dumps(canonical.digest_bytes(preimage)))
        self.payloads[c] = Payload(c, name, "preimage", preimage)
        return c

    def maybe(self, name: str, value: canonical.JsonValue) -> str | None:
        """Like `value`; `None` stays `None`."""
        return None if value is None else self.value(name, value)
