"""Wrapping anew what rests under an older key, and sealing payloads that rest in clear, while brokers run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from stepgrant_broker.domain.ports import SecretRecord, Wrapped
from stepgrant_broker.domain.writes import ChainKey

Place: TypeAlias = tuple[str, ...]
"""A row's key, behind which the next page begins; empty strings begin."""


class RewrapStore(Protocol):
    """What is to be done is found by walking over all rows; a walk may begin anew. All raise `StoreUnavailable`."""

    async def chain_keys_under_others(self, key_id: str, after: Place, limit: int) -> tuple[ChainKey, ...]:
        """Keys of chains that are wrapped by another key than this, behind (tenant, run)."""

    async def secrets_under_others(self, key_id: str, after: Place, limit: int) -> tuple[SecretRecord, ...]:
        """Static secrets that are wrapped by another key than this, behind (tenant, name)."""

    async def rewrap(self, pairs: Sequence[tuple[ChainKey | SecretRecord, Wrapped]]) -> int:
        """Replace what each wraps, if it is still the same; how many were. What was erased meanwhile stays erased."""

    async def seal_clear(self, after: Place, limit: int) -> tuple[int, Place | None]:
        """Seal the payloads in clear among the next, behind (tenant, chain, c): how many, and where to go on."""

    async def compact(self) -> None:
        """Let nothing of rows that were written over stay in the database's file, where that is in our power."""
