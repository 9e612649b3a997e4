"""Signing keys of the installation: what the signer has is registered, and every tenant's own chain hears of it.

Rules:
* The registry comes first, each row by itself; entries follow, one commit for each tenant. A crash in between is made
  good by whoever comes next: what the registry has and a chain has not is entered.
* Only a key that the signer itself has is entered: who can write into the database must not get a key vouched for.
* A key that is revoked is over at once. Revoking is final, and needs no other key; whoever revokes the one that signs
  makes another first (`wiring/key_keeping.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stepgrant import canonical
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.errors import NotFound
from stepgrant_broker.domain.journal import BROKER, By
from stepgrant_broker.domain.keys import PURPOSES, SigningKey
from stepgrant_broker.domain.writes import Loaded, Query
from stepgrant_broker.usecases.transact import Change, Repeat, journal_for, transact

if TYPE_CHECKING:
    from stepgrant_broker.domain.keys import KeyStore
    from stepgrant_broker.domain.ports import SigningKeys
    from stepgrant_broker.usecases.context import Ports


async def register(keys: KeyStore, signer: SigningKeys, now: int) -> tuple[SigningKey, ...]:
    """Register what the signer has and the registry has not; all registered keys. `now` in milliseconds.

    Raises `SignerUnavailable`, `StoreUnavailable`.
    """
    known = await keys.signing_keys()
    named = {(one.purpose, one.kid) for one in known}
    begun = {one.purpose for one in known}
    new = False
    for purpose in PURPOSES:
        for epoch in reversed(await signer.epochs(purpose)):
            if (purpose, epoch.key.kid) in named:
                continue
            signs_from = (epoch.signs_from or now) if purpose in begun else 0
            row = SigningKey(purpose, epoch.key.kid, epoch.number, dict(epoch.key.jwk), now, signs_from)
            await keys.key_seen(row)
            begun.add(purpose)
            new = True
    return await keys.signing_keys() if new else known


async def enter(
    ports: Ports,
    keys: KeyStore,
    tenant: str,
    own: Collection[str],
    *,
    by: By = BROKER,
    notes: Mapping[str, str] | None = None,
) -> int:
    """Enter in this tenant's own chain what it has not heard of keys; how many entries.

    `own`: the ids that the signer has. `notes`: why revoked, by id. Raises `StoreUnavailable`, `RetriesExhausted`.
    """
    registered = await keys.signing_keys()

    async def work(loaded: Loaded) -> Change[int] | Repeat[int]:
        heard = {_name(canonical.loads(data)) for data in await keys.key_entries(tenant)}
        missing = [
            (kind, body)
            for kind, body in _events(registered)
            if (kind.value, body["kid"]) not in heard and (kind is EntryType.KEY_REVOKED or body["kid"] in own)
        ]
        if not missing:
            return Repeat(0)
        key = loaded.tenant_key or ports.new_chain_key(tenant, "")
        journal = journal_for(ports, loaded, by, key=key)
        for kind, body in missing:
            note = (notes or {}).get(body["kid"]) if kind is EntryType.KEY_REVOKED else None
            more = {} if note is None else {"note_c": journal.commit.value("key.note", note)}
            journal.add(kind, body={**body, **more})
        return Change(len(missing), journal, rows=() if loaded.tenant_key is not None else (key,))

    return await transact(ports, Query(tenant), work)


async def revoke(keys: KeyStore, kid: str, now: int, size: int) -> SigningKey:
    """Revoke a key: tree heads by it count up to `size` from now on. Doing it again changes nothing.

    Raises `NotFound`, `StoreUnavailable`.
    """
    found = named(await keys.signing_keys(), kid)
    await keys.key_revoked(found.purpose, found.kid, now, size)
    return named(await keys.signing_keys(), found.kid)


def named(keys: Collection[SigningKey], kid: str) -> SigningKey:
    """The registered key of this id. Raises `NotFound`."""
    for one in keys:
        if one.kid == kid:
            return one
    raise NotFound(f"there is no signing key {kid[:64]!r}; `stepgrant keys list` shows them all", field="kid")


def _events(registered: Collection[SigningKey]) -> Iterator[tuple[EntryType, dict[str, Any]]]:
    """What there is to hear, in order of time: of each key but the first ones that it came; and what was revoked."""
    told: list[tuple[int, EntryType, dict[str, Any]]] = []
    before: dict[str, str] = {}
    for one in sorted(registered, key=lambda key: (key.purpose, key.number)):
        if one.signs_from:
            body = {
                "purpose": one.purpose,
                "kid": one.kid,
                "number": one.number,
                "jwk": dict(one.jwk),
                "since": one.since,
                "signs_from": one.signs_from,
            }
            previous = before.get(one.purpose)
            told.append((one.since, EntryType.KEY_ROTATED, {**body, **({"previous": previous} if previous else {})}))
        if one.revoked_at is not None:
            over = {"purpose": one.purpose, "kid": one.kid, "at": one.revoked_at, "size": one.revoked_size or 0}
            told.append((one.revoked_at, EntryType.KEY_REVOKED, over))
        before[one.purpose] = one.kid
    for _, kind, body in sorted(told, key=lambda event: event[0]):
        yield kind, body


def _name(fields: object) -> tuple[str, str]:
    members = fields if isinstance(fields, dict) else {}
    body = members.get("body")
    return str(members.get("type")), str(body.get("kid") if isinstance(body, dict) else "")
