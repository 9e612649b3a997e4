"""Checking the registry of signing keys: what no chain tells of, what it tells otherwise, and what was revoked.

Rules:
* Each tenant's own chain tells of every key but the first one of its purpose, and of what was revoked; a tenant that
  began later may not have heard yet. So what any chain tells has to be there, and nothing else.
* A key's id is its thumbprint, so no other key can stand under it.
* A revoked key vouches for heads up to the size that the log had when it was revoked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from stepgrant import canonical, tlog
from stepgrant._keys import JoseError, verifying_key
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.keys import SigningKey
from stepgrant_broker.ledger.check_heads import LogKey
from stepgrant_broker.ledger.compare import compare
from stepgrant_broker.ledger.findings import Code, Finding, Place, row

if TYPE_CHECKING:
    from stepgrant_broker.domain.keys import KeyStore

HEADS: Final = "heads"
PAUSE_S: Final = 1.0
Name = tuple[str, str]


@dataclass(slots=True)
class Told:
    """What chains tell: keys that came, and when which one was revoked, with the log's size."""

    came: dict[Name, SigningKey] = field(default_factory=dict)
    revoked: dict[Name, tuple[int, int]] = field(default_factory=dict)

    def hear(self, data: bytes) -> None:
        """One entry about a key. What cannot be read was found in its chain, and tells nothing here."""
        try:
            entry: Any = canonical.loads(data)
            body: Mapping[str, Any] = entry["body"]
            name = body["purpose"], body["kid"]
            if entry["type"] == EntryType.KEY_REVOKED:
                self.revoked.setdefault(name, (body["at"], body["size"]))
            else:
                times = body["since"], body["signs_from"]
                self.came.setdefault(name, SigningKey(*name, body["number"], body["jwk"], *times))
        except (canonical.CanonicalError, KeyError, TypeError):
            return


async def registry(store: KeyStore, tenants: Collection[str]) -> list[Finding]:
    """What is wrong with the registry's rows.

    A key that was made a moment ago stands there before any chain tells of it, so what is wrong is looked at twice.
    """
    found = await _looked(store, tenants)
    if found:
        await asyncio.sleep(PAUSE_S)
        found = await _looked(store, tenants)
    return found


async def _looked(store: KeyStore, tenants: Collection[str]) -> list[Finding]:
    told = Told()
    for tenant in tenants:
        for data in await store.key_entries(tenant):
            told.hear(data)
    return _compared(await store.signing_keys(), told)


def _compared(rows: Iterable[SigningKey], told: Told) -> list[Finding]:
    there = {(one.purpose, one.kid): one for one in rows}
    first: dict[str, SigningKey] = {}
    for one in there.values():
        if one.signs_from == 0:
            first.setdefault(one.purpose, one)
    came = {**{(one.purpose, one.kid): one for one in first.values()}, **told.came}
    expected = {}
    for name, one in came.items():
        later = [other for other in came.values() if other.purpose == one.purpose and other.number > one.number]
        until = min(later, key=lambda other: other.number).signs_from if later else None
        at, size = told.revoked.get(name, (None, None))
        expected[name] = replace(one, until=until, revoked_at=at, revoked_size=size)
    found = list(compare(_at, expected, there))
    wrong = [name for name, one in there.items() if not _is_itself(one)]
    return [*found, *(Finding(Code.ROW_DIFFERS, _at(name), "the kid is not the key's thumbprint") for name in wrong)]


def _at(name: Name) -> Place:
    return row("signing_keys", purpose=name[0], kid=name[1])


def _is_itself(key: SigningKey) -> bool:
    try:
        return verifying_key(key.jwk).jkt == key.kid
    except JoseError:
        return False


def revoked_keys(keys: Iterable[SigningKey], names: Collection[str]) -> list[LogKey]:
    """The log's revoked keys, under its names: each is good for heads up to where it was revoked."""
    return [
        LogKey(tlog.note_key(name, tlog.ED25519, canonical.b64u_decode(key.jwk["x"])), key.revoked_size)
        for key in keys
        if key.purpose == HEADS and key.revoked_at is not None and _is_itself(key)
        for name in sorted(names)
    ]
