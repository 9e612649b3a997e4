"""What can go wrong with Vault, named, and how the ports say it.

    VaultFault                      `maybe` is True when the request may have taken effect all the same
    ├── VaultRefused                Vault answered, and does not do it
    │   ├── VaultDenied             403: the token may not
    │   ├── VaultMissing            404: no such path, role or key
    │   └── VaultBad                400 and other 4xx, or an answer that is none
    └── VaultUnavailable            no answer in time, no connection, 5xx, too many requests, a standby
        └── VaultSealed             sealed or not initialised

Rules:
* The text of a fault is ours: path, method and what to mend. It never has a token, a body, or Vault's own words.
* Vault's words, trimmed and with everything masked that may be a value, are in `said`, for an operator's log only.
* No fault leaves an adapter: a port raises `issuer_fault(fault)` or `signer_fault(fault)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable, SignerUnavailable

SAID_MAX: Final = 160
RETRY_MS: Final = 1000
QUOTED: Final = re.compile(r"\"[^\"]*\"?|'[^']*'?|`[^`]*`?")
VALUE: Final = re.compile(r"[A-Za-z0-9+_.=-]{20,}")


class VaultFault(Exception):
    """Base. `maybe`: the request may have taken effect. `said`: Vault's own words, masked and short."""

    def __init__(self, detail: str, *, maybe: bool = False, said: str = "", status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.maybe = maybe
        self.said = said
        self.status = status


class VaultRefused(VaultFault):
    """Vault answered, and does not do it."""


class VaultDenied(VaultRefused):
    """The token is dead, or its policies do not have the capability on this path."""


class VaultMissing(VaultRefused):
    """There is nothing at this path: no such mount, role, key or version.

    `metadata`: what Vault says of a version of the key-value store that was deleted or destroyed; no secret is in it.
    """

    metadata: Mapping[str, object] = MappingProxyType({})


class VaultBad(VaultRefused):
    """Vault refuses the request itself, or its answer is not what its API says."""


class VaultUnavailable(VaultFault):
    """No usable answer: time-out, connection, 5xx, or too many requests."""


class VaultSealed(VaultUnavailable):
    """Vault is sealed or not initialised; people must unseal it."""


def trimmed(text: str) -> str:
    """The first words of a foreign text; what is quoted or long enough to be a value is masked."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text[: 8 * SAID_MAX])
    return " ".join(VALUE.sub("…", QUOTED.sub("…", plain)).split())[:SAID_MAX]


def issuer_fault(fault: VaultFault) -> IssuerUnavailable:
    """The fault as the port `Issuer` says it: `IssuerRefused` when Vault answered, else `IssuerUnavailable`."""
    if isinstance(fault, VaultRefused):
        return IssuerRefused(fault.detail)
    return IssuerUnavailable(fault.detail, retry_after_ms=RETRY_MS)


def signer_fault(fault: VaultFault) -> SignerUnavailable:
    """The fault as the port `Signer` says it."""
    return SignerUnavailable(fault.detail, retry_after_ms=None if isinstance(fault, VaultRefused) else RETRY_MS)
