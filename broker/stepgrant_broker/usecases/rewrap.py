"""Wrap anew everything that rests under an older wrap key, and seal what rests in clear from before.

Rules:
* In batches, beside running brokers: each row is replaced only while it is what was read. Whatever stops it, it is
  begun again and finds what is left.
* Nothing is committed to any chain: what the keys wrap stays the same. That a key was rotated is entered by whoever
  rotates it.
* The old key can be deleted once this ends with nothing left and every broker wraps with the new one; backups from
  before can then no longer be read, nor runs that were erased since be read out of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from stepgrant_broker.domain import aad
from stepgrant_broker.domain.writes import ChainKey

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import KeyWrap, SecretRecord, Wrapped
    from stepgrant_broker.domain.rewrapping import Place, RewrapStore

Row = TypeVar("Row", ChainKey, "SecretRecord")
BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What was done: keys of chains, static secrets, payloads that were in clear. `left`: changed while it was done."""

    chain_keys: int
    secrets: int
    payloads: int
    left: int


async def rewrap(store: RewrapStore, wrap: KeyWrap) -> Rewrapped:
    """Bring everything under the newest wrap key. Raises `StoreUnavailable`, and what `wrap` raises."""
    keys, secrets = 0, 0
    for _ in range(2):
        # What was wrapped by a broker that had not seen the new key yet is found by the second walk.
        keys += await _all(store, wrap, store.chain_keys_under_others, _of_chain)
        secrets += await _all(store, wrap, store.secrets_under_others, _of_secret)
    payloads = 0
    going: Place | None = ("", "", "")
    while going is not None:
        sealed, going = await store.seal_clear(going, BATCH)
        payloads += sealed
    if payloads:
        await store.compact()
    none = ("", "")
    left = len(await store.chain_keys_under_others(wrap.key_id, none, BATCH))
    left += len(await store.secrets_under_others(wrap.key_id, none, BATCH))
    return Rewrapped(keys, secrets, payloads, left)


async def _all(
    store: RewrapStore,
    wrap: KeyWrap,
    page: Callable[[str, Place, int], Awaitable[tuple[Row, ...]]],
    place: Callable[[Row], tuple[Place, bytes]],
) -> int:
    done = 0
    after: Place = ("", "")
    while rows := await page(wrap.key_id, after, BATCH):
        pairs: list[tuple[ChainKey | SecretRecord, Wrapped]] = []
        for row in rows:
            _, bound = place(row)
            pairs.append((row, wrap.wrap(wrap.unwrap(row.wrapped, bound), bound)))
        done += await store.rewrap(pairs)
        after = place(rows[-1])[0]
    return done


def _of_chain(key: ChainKey) -> tuple[Place, bytes]:
    return (key.tenant, key.run), aad.chain_key(key.tenant, key.run)


def _of_secret(secret: SecretRecord) -> tuple[Place, bytes]:
    return (secret.tenant, secret.name), aad.static_secret(secret.tenant, secret.name)
