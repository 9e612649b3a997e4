"""What the use cases work with: the ports of one broker, and the keys of its chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stepgrant_broker.domain import aad
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.commitments import Committer
from stepgrant_broker.domain.decisions import Decision
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.ports import Clock, Failpoints, Ids, Issuer, KeyWrap, PolicyEngine, Signer, Store
from stepgrant_broker.domain.reads import Reads
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.writes import ChainKey
from stepgrant_broker.usecases.served import Served
from stepgrant_broker.usecases.turns import Turns

KEY_BYTES: Final = 32


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
    served: Served = field(default_factory=Served)

    def committer(self, key: ChainKey) -> Committer:
        """A committer under this chain's key."""
        return Committer(self.keys.secret(key, self.wrap))

    def new_chain_key(self, tenant: str, run: str) -> ChainKey:
        """A fresh `k_run`, wrapped for rest."""
        return ChainKey(tenant, run, self.wrap.wrap(self.ids.random(KEY_BYTES), aad.chain_key(tenant, run)))


def present(key: ChainKey | None) -> ChainKey:
    """The key of a chain that has one. Raises `StoreUnavailable` for a chain whose key is gone."""
    if key is None:
        raise StoreUnavailable("the key of this chain is missing; the database was changed from outside")
    return key
