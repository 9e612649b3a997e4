"""What the use cases work with: the ports of one broker, and the keys of its chains."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from stepgrant_broker.domain import aad
from stepgrant_broker.domain.commitments import Committer
from stepgrant_broker.domain.decisions import Decision
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.ports import Clock, Failpoints, Ids, Issuer, KeyWrap, PolicyEngine, Signer, Store
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.writes import ChainKey
from stepgrant_broker.usecases.turns import Turns

KEY_BYTES: Final = 32
KEYS_KEPT: Final = 4096


class Keys:
    """Unwrapped chain keys of recently used chains, in memory only."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, bytes], bytes] = OrderedDict()

    def unwrap(self, key: ChainKey, wrap: KeyWrap) -> bytes:
        """The plain key. Raises `StoreUnavailable` when what rests does not unwrap."""
        name = (key.tenant, key.run, key.wrapped.nonce)
        plain = self._kept.get(name)
        if plain is None:
            plain = wrap.unwrap(key.wrapped, aad.chain_key(key.tenant, key.run))
            self._kept[name] = plain
            if len(self._kept) > KEYS_KEPT:
                self._kept.popitem(last=False)
        return plain

    def forget(self, tenant: str, run: str) -> None:
        """Drop a chain's key, as erasure must."""
        for name in [name for name in self._kept if name[:2] == (tenant, run)]:
            del self._kept[name]

    def __reduce__(self) -> NoReturn:
        raise TypeError("chain keys can be neither pickled nor copied")


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a use case may reach. `parse` is `policy/contract.py`: raw answer to closed decision."""

    store: Store
    reads: Reads
    policy: PolicyEngine
    parse: Callable[[bytes | None], Decision]
    issuers: Mapping[str, Issuer]
    signer: Signer
    wrap: KeyWrap
    clock: Clock
    ids: Ids
    failpoints: Failpoints | None
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)
    turns: Turns = field(default_factory=Turns)

    def committer(self, key: ChainKey) -> Committer:
        """A committer under this chain's key."""
        return Committer(self.keys.unwrap(key, self.wrap))

    def new_chain_key(self, tenant: str, run: str) -> ChainKey:
        """A fresh `k_run`, wrapped for rest."""
        return ChainKey(tenant, run, self.wrap.wrap(self.ids.random(KEY_BYTES), aad.chain_key(tenant, run)))


def present(key: ChainKey | None) -> ChainKey:
    """The key of a chain that has one. Raises `StoreUnavailable` for a chain whose key is gone."""
    if key is None:
        raise StoreUnavailable("the key of this chain is missing; the database was changed from outside")
    return key
