"""Commitments: how an entry speaks of a value without showing it (`protocol.md` §6).

`x_c = b64u(HMAC-SHA-256(r, value))` with `r = HMAC-SHA-256(k_run, field || 0x00 || value)` and value = its JCS bytes.
A receipt discloses field, value and `r`; it never needs `k_run`. Destroying `k_run` makes guessing worthless.
The same field and value under one `k_run` give the same commitment, so that equality can be checked blind.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from stepgrant import canonical


@dataclass(frozen=True, slots=True, repr=False)
class Payload:
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


@dataclass(frozen=True, slots=True, repr=False)
class Kept:
    """A payload as it rests. `body` is encrypted under the key `key_id` of its chain, or in clear (`None`)."""

    c: str
    field: str
    form: Literal["value", "preimage"]
    body: bytes
    key_id: str | None = None
    nonce: bytes | None = None


def opening(key: bytes, name: str, value: bytes) -> bytes:
    """The `r` that opens one commitment and tells nothing of others."""
    return hmac.digest(key, name.encode() + b"\x00" + value, hashlib.sha256)


@dataclass(slots=True, repr=False)
class Committer:
    """Commits under one run's (or tenant's) key and collects the payloads that belong to it."""

    key: bytes
    payloads: dict[str, Payload] = field(default_factory=dict)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a chain's key can be neither pickled nor copied")

    def _commit(self, name: str, value: bytes) -> str:
        return canonical.b64u(hmac.digest(opening(self.key, name, value), value, hashlib.sha256))

    def peek(self, name: str, value: canonical.JsonValue) -> str:
        """The commitment alone; nothing is kept."""
        return self._commit(name, canonical.dumps(value))

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
