"""Checking the registry of signing keys: what no chain tells of, what it tells otherwise, and what was revoked.

Rules:
* Each tenant's own chain tells of every key but the first one of its purpose, and of what was revoked; a tenant that
  began later may not have heard yet. So what any chain tells has to be there, and nothing else.
* For the first key of a purpose somebody else has to stand: the entry about the key after it, which names it, or the
  signer, who has it. A signer in Vault may not show it any more; then a key came after it.
* A key's id is its thumbprint, so no other key can stand under it.
* A revoked key vouches for heads up to the size that the log had when it was revoked.
* When a first key was first seen (`since`) stands nowhere else. It is only shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stepgrant import canonical, tlog
from stepgrant._keys import JoseError, verifying_key
from stepgrant_broker.domain.entries import EntryType
from stepgrant_broker.domain.keys import PURPOSES, SigningKey
from stepgrant_broker.ledger.check_heads import LogKey
from stepgrant_broker.ledger.compare import compare
from stepgrant_broker.ledger.findings import Code, Finding, Place, row

if TYPE_CHECKING:
    from stepgrant_broker.domain.keys import KeyEpoch, KeyStore
    from stepgrant_broker.domain.ports import SigningKeys

HEADS: Final = "heads"
REGISTRY: Final = row("signing_keys")
PAUSE_S: Final = 1.0
Name: TypeAlias = tuple[str, str]
Own: TypeAlias = Mapping[str, Mapping[str, "KeyEpoch"]]
"""What the signer has: by purpose and key id."""


@dataclass(slots=True)
class Told:
    """What chains tell: keys that came, which one was before them, and when one was revoked, with the log's size."""

    came: dict[Name, SigningKey] = field(default_factory=dict)
    before: dict[str, set[str]] = field(default_factory=dict)
    revoked: dict[Name, tuple[int, int]] = field(default_factory=dict)

    def hear(self, data: bytes) -> None:
        """One entry about a key. What cannot be read was found in its chain, and tells nothing here."""
        try:
            entry: Any = canonical.loads(data)
            body: Mapping[str, Any] = entry["body"]
            name = body["purpose"], body["kid"]
            if entry["type"] == EntryType.KEY_REVOKED:
                self.revoked.setdefault(name, (body["at"], body["size"]))
                return
            times = body["since"], body["signs_from"]
            self.came.setdefault(name, SigningKey(*name, body["number"], body["jwk"], *times))
            if "previous" in body:
                self.before.setdefault(body["purpose"], set()).add(body["previous"])
        except (canonical.CanonicalError, KeyError, TypeError):
            return

    def first(self, purpose: str) -> str | None:
        """The id of the purpose's first key, once another one came after it."""
        found = [kid for kid in self.before.get(purpose, ()) if (purpose, kid) not in self.came]
        return found[0] if len(found) == 1 else None


async def registry(store: KeyStore, tenants: Collection[str], signer: SigningKeys | None = None) -> list[Finding]:
    """What is wrong with the registry's rows. Without `signer`, a first key is believed if it is the only one.

    A key that was made a moment ago stands there before any chain tells of it, so what is wrong is looked at twice.
    Raises `StoreUnavailable`, `SignerUnavailable`.
    """
    found = await _looked(store, tenants, signer)
    if found:
        await asyncio.sleep(PAUSE_S)
        found = await _looked(store, tenants, signer)
    return found


async def _looked(store: KeyStore, tenants: Collection[str], signer: SigningKeys | None) -> list[Finding]:
    own: Own | None = None
    if signer is not None:
        own = {purpose: {one.key.kid: one for one in await signer.epochs(purpose)} for purpose in PURPOSES}
    told = Told()
    for tenant in tenants:
        for data in await store.key_entries(tenant):
            told.hear(data)
    return _compared(await store.signing_keys(), told, own)


def _compared(rows: Iterable[SigningKey], told: Told, own: Own | None) -> list[Finding]:
    there = {(one.purpose, one.kid): one for one in rows}
    came, found = {**told.came}, list[Finding]()
    for purpose in PURPOSES:
        first = _first(purpose, there, told, own)
        came |= {(purpose, one.kid): one for one in first}
        if len(first) > 1:
            what = f"{len(first)} keys claim to be the first one, and nobody here can tell which is"
            found += [Finding(Code.ROW_ORPHAN, _at((purpose, one.kid)), what) for one in first]
    expected = {}
    for name, one in came.items():
        later = [other for other in came.values() if other.purpose == one.purpose and other.number > one.number]
        until = min(later, key=lambda other: other.number).signs_from if later else None
        at, size = told.revoked.get(name, (None, None))
        expected[name] = replace(one, until=until, revoked_at=at, revoked_size=size)
    unknown = "no entry tells of this key" if own is None else "neither an entry nor the signer knows this key"
    for finding in compare(_at, expected, there):
        found.append(replace(finding, what=unknown) if finding.code is Code.ROW_ORPHAN else finding)
    missing = dict.fromkeys(_named(told) - there.keys(), "its entries are there, its row is not")
    missing |= dict.fromkeys(_unregistered(there, own), "the signer has this key, its row is gone")
    found += [Finding(Code.ROW_MISSING, _at(name), what) for name, what in missing.items() if name not in expected]
    named = {finding.at for finding in found}
    wrong = [_at(name) for name, one in there.items() if not _is_itself(one) and _at(name) not in named]
    return [*found, *(Finding(Code.ROW_DIFFERS, at, "it is not the public key that its kid names") for at in wrong)]


def _first(purpose: str, there: Mapping[Name, SigningKey], told: Told, own: Own | None) -> list[SigningKey]:
    """The row of the purpose's first key, as it has to be, if somebody stands for it.

    Nobody to ask: each row that claims it, for then none can be told from the others.
    """
    claims = [
        one for name, one in there.items() if one.purpose == purpose and one.signs_from == 0 and name not in told.came
    ]
    kid, epochs = told.first(purpose), {} if own is None else own[purpose]
    if kid is not None:
        claims = [one for one in claims if one.kid == kid]
    elif own is not None:
        claims = [one for one in claims if one.kid in epochs]
        claims = sorted(claims, key=lambda one: epochs[one.kid].number)[:1]
    return [replace(one, number=epochs[one.kid].number) if one.kid in epochs else one for one in claims]


def _named(told: Told) -> set[Name]:
    """First keys that entries speak of."""
    firsts = [(purpose, told.first(purpose)) for purpose in PURPOSES]
    return {(purpose, kid) for purpose, kid in firsts if kid is not None} | told.revoked.keys()


def _unregistered(there: Mapping[Name, SigningKey], own: Own | None) -> list[Name]:
    """Keys of the signer that were registered once: older ones than one that is, and of a purpose that has none.

    The newest is registered a moment after it was made, and a registry without rows has not begun.
    """
    found: list[Name] = []
    for purpose, epochs in (own or {}).items() if there else ():
        known = [one.number for kid, one in epochs.items() if (purpose, kid) in there]
        begun = any(name[0] == purpose for name in there)
        missing = [one for kid, one in epochs.items() if (purpose, kid) not in there]
        if begun:
            missing = [one for one in missing if one.number < max(known, default=0)]
        else:
            missing = sorted(missing, key=lambda one: one.number)[:1]
        found += [(purpose, one.key.kid) for one in missing]
    return found


def _at(name: Name) -> Place:
    return row("signing_keys", purpose=name[0], kid=name[1])


def _is_itself(key: SigningKey) -> bool:
    """Whether the row holds just the public key that its id is the thumbprint of."""
    try:
        found = verifying_key(key.jwk)
    except JoseError:
        return False
    return found.jkt == key.kid and key.jwk == {**found.jwk, "alg": found.alg, "kid": found.jkt, "use": "sig"}


def revoked_keys(keys: Iterable[SigningKey], names: Collection[str]) -> list[LogKey]:
    """The log's revoked keys, under its names: each is good for heads up to where it was revoked."""
    return [
        LogKey(tlog.note_key(name, tlog.ED25519, canonical.b64u_decode(key.jwk["x"])), key.revoked_size)
        for key in keys
        if key.purpose == HEADS and key.revoked_at is not None and _is_itself(key)
        for name in sorted(names)
    ]
