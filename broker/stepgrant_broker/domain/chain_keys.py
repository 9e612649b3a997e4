"""Unwrapped keys of recently used chains, in memory only, shared by all who need them in one broker.

Rules:
* A key is known by its wrapped form: one that was wrapped anew, or that comes back after erasure, is another key here.
* What is derived from a chain's key dies with it (`ChainSecret`): `data_key` encrypts payloads, so destroying the one
  key that is at rest makes commitments and payloads worthless together.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NoReturn

from stepgrant_broker.domain import aad
from stepgrant_broker.domain.commitments import ChainSecret

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import KeyWrap
    from stepgrant_broker.domain.writes import ChainKey

KEYS_KEPT: Final = 4096


class Keys:
    """The keys. Threads share it: a store opens payloads on the thread that reads them. Each step of it is atomic."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, bytes, bytes], ChainSecret] = OrderedDict()

    def secret(self, key: ChainKey, wrap: KeyWrap) -> ChainSecret:
        """The plain key with what is made from it. Raises `StoreUnavailable` when what rests does not unwrap."""
        wrapped = key.wrapped
        name = (key.tenant, key.run, wrapped.nonce, wrapped.ciphertext)
        secret = self._kept.get(name)
        if secret is None:
            secret = ChainSecret(wrap.unwrap(wrapped, aad.chain_key(key.tenant, key.run)))
            self._kept[name] = secret
            if len(self._kept) > KEYS_KEPT:
                self._kept.popitem(last=False)
        return secret

    def unwrap(self, key: ChainKey, wrap: KeyWrap) -> bytes:
        """The plain key alone. Raises as `secret`."""
        return self.secret(key, wrap).key

    def forget(self, tenant: str, run: str) -> None:
        """Drop a chain's key, as erasure must."""
        # A list of all names first: another thread may add one meanwhile.
        for name in [name for name in list(self._kept) if name[:2] == (tenant, run)]:
            self._kept.pop(name, None)

    def __reduce__(self) -> NoReturn:
        raise TypeError("chain keys can be neither pickled nor copied")
