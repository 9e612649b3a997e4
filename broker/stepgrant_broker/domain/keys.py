"""Signing keys through time: the epochs that a signer has, and the registry of all that this installation ever had.

Rules:
* The registry belongs to the installation, not to a tenant; what happens in it is entered in every tenant's own chain
  (`key_rotated`, `key_revoked`). Keys that were there when the registry began (`signs_from` 0) have no entry.
* Who is first wins, field by field: a key is seen once, ends once, is revoked once. Nothing is taken back.
* A revoked key stays in the registry, so that what it signed can be told from what nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import PublicKey

PURPOSES: Final = ("grants", "access", "heads")
"""What keys sign: credentials of ours, access tokens, and heads of runs and of the log."""


@dataclass(frozen=True, slots=True)
class KeyEpoch:
    """A key of one purpose where it rests. `signs_from` (ms): 0 is the beginning. `signs`: it can still sign there."""

    number: int
    key: PublicKey
    signs_from: int
    signs: bool


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A registered key; `jwk` is public. Times in milliseconds since the epoch.

    `since`: first seen. `signs_from`, `until`: between them it signs (`until` None: nothing came after it).
    `revoked_at`: nothing signed by it counts from then on, and tree heads only up to `revoked_size`.
    """

    purpose: str
    kid: str
    number: int
    jwk: Mapping[str, str]
    since: int
    signs_from: int
    until: int | None = None
    revoked_at: int | None = None
    revoked_size: int | None = None


class KeyStore(Protocol):
    """The registry's rows. All raise `StoreUnavailable`."""

    async def signing_keys(self) -> tuple[SigningKey, ...]:
        """All keys, by purpose and number."""

    async def key_entries(self, tenant: str) -> tuple[bytes, ...]:
        """The bytes of the entries about keys in this tenant's own chain, in order."""

    async def key_seen(self, key: SigningKey) -> None:
        """Register a key, and end those of its purpose with lower numbers; one that is there stays as it is."""

    async def key_revoked(self, purpose: str, kid: str, at: int, size: int) -> bool:
        """Revoke a registered key; False if it was revoked before, or is not there."""
