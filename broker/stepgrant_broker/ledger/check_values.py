"""What stands behind commitments: each stored value must be there, and be the one that its entry commits to.

Rules:
* A value goes only where an entry tells of it. A run that was erased (by a person, or by retention) has neither key nor
  values: what is left of it is a finding, that it is gone is none. What names a credential outside goes with the entry
  that its issuer confirmed its death. Whatever else is missing was deleted behind the broker's back.
* Values are asked for a batch at a time; their contents are never told.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from stepgrant import canonical
from stepgrant._receipt_entries import commitments
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.commitments import opening
from stepgrant_broker.domain.errors import PayloadDamaged, StepgrantFault
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.ledger.findings import Code, Finding, row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stepgrant._receipt_entries import Event
    from stepgrant_broker.domain.commitments import Payload
    from stepgrant_broker.domain.ports import KeyWrap
    from stepgrant_broker.domain.reads import Reads
    from stepgrant_broker.domain.state import Grant
    from stepgrant_broker.ledger.findings import Place, Progress

BATCH: Final = 500
ERASED: Final = "run_erased"


class Named(NamedTuple):
    """The first entry that commits to a value, and what it calls it."""

    seq: int
    field: str


@dataclass(slots=True)
class Opener:
    """Checks stored payloads against the commitments of one chain, a batch at a time."""

    reads: Reads
    tenant: str
    run: str | None
    progress: Progress
    key: bytes | None = None
    problem: Finding | None = None
    waiting: dict[str, Named] = field(default_factory=dict)
    missing: dict[str, Named] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    has_key: bool = False
    erased: int | None = None

    @classmethod
    async def of(cls, reads: Reads, wrap: KeyWrap | None, tenant: str, run: str | None, progress: Progress) -> Opener:
        """An opener with the chain's key, or with the finding why there is none."""
        opener = cls(reads, tenant, run, progress)
        kept = await reads.chain_key(tenant, run or "")
        opener.has_key = kept is not None
        if wrap is None:
            return opener
        if kept is None:
            opener.problem = Finding(Code.KEY_MISSING, opener._key, "it is gone, and no entry says that it was erased")
            return opener
        try:
            opener.key = wrap.unwrap(kept.wrapped, aad.chain_key(tenant, run or ""))
        except StepgrantFault:
            opener.problem = Finding(Code.KEY_UNUSABLE, opener._key, "it does not unwrap with this broker's key")
        return opener

    @property
    def _key(self) -> Place:
        return row("chain_keys", tenant=self.tenant, run=self.run or "")

    async def add(self, event: Event) -> list[Finding]:
        """Note an entry's commitments; findings come with full batches."""
        if event.type == ERASED:
            self.erased = event.seq
        for name, c in commitments(event):
            if c not in self.seen:
                self.seen.add(c)
                self.waiting[c] = Named(event.seq, name)
        return await self._flush() if len(self.waiting) >= BATCH else []

    async def finish(self, grants: Iterable[Grant] = ()) -> list[Finding]:
        """Check what is still waiting; what is left of an erased run, or why its values could not be read.

        `grants`: all that the chain's entries tell of.
        """
        found = await self._flush()
        if self.erased is None:
            problem = [self.problem] if self.problem is not None else []
            return [*problem, *found, *self._gone(_taken_back(grants))]
        if self.has_key:
            found.append(Finding(Code.NOT_ERASED, self._key, "the run was erased, its key is there", self.erased))
        return [*found, *await self._left()]

    async def _flush(self) -> list[Finding]:
        """Check what is waiting."""
        asked, self.waiting = self.waiting, {}
        found: list[Finding] = []
        while asked and self.key is not None:
            try:
                payloads = await self.reads.payloads(self.tenant, self.run or "", tuple(asked))
            except PayloadDamaged as damaged:
                known = asked.pop(damaged.c, None)
                seq = None if known is None else known.seq
                found.append(changed(self.tenant, self.run, damaged.c, damaged.payload, seq))
                continue
            for c, payload in payloads.items():
                self.progress.payloads += 1
                if not self._opens(c, payload):
                    found.append(changed(self.tenant, self.run, c, payload.field, asked[c].seq))
            self.missing |= {c: named for c, named in asked.items() if c not in payloads}
            break
        return found

    def _gone(self, rightly: set[str]) -> list[Finding]:
        """Values that are not there although no entry tells of their end."""
        return [
            Finding(
                Code.PAYLOAD_MISSING,
                row("payloads", tenant=self.tenant, chain=self.run or "", c=c),
                f"the {named.field.removeprefix('*.')} that the entry commits to is gone, and no entry tells why",
                named.seq,
            )
            for c, named in self.missing.items()
            if c not in rightly
        ]

    async def _left(self) -> list[Finding]:
        """Values of an erased run that are still there."""
        left: list[str] = []
        every = sorted(self.seen)
        for some in (every[at : at + BATCH] for at in range(0, len(every), BATCH)):
            try:
                left += await self.reads.payloads(self.tenant, self.run or "", some)
            except PayloadDamaged as damaged:
                left.append(damaged.c)
        at = [row("payloads", tenant=self.tenant, chain=self.run or "", c=c) for c in left]
        return [Finding(Code.NOT_ERASED, place, "the run was erased, this value is there") for place in at]

    def _opens(self, c: str, payload: Payload) -> bool:
        value = payload.value()
        r = opening(self.key or b"", payload.field, value)
        return canonical.b64u(hmac.digest(r, value, hashlib.sha256)) == c


def _taken_back(grants: Iterable[Grant]) -> set[str]:
    """What named credentials that are dead by their issuers' word; it went with the entry that says so.

    Where an issuer confirms nothing, revocation is final at once, and takes no value along.
    """
    dead = (one for one in grants if one.revocation is Revocation.CONFIRMED and one.confirmed_at is not None)
    return {c for grant in dead for c in (grant.handle_c, grant.lease_c) if c is not None}


def changed(tenant: str, run: str | None, c: str, name: str, seq: int | None = None) -> Finding:
    """The value behind this commitment is another one, or does not even open."""
    at = row("payloads", tenant=tenant, chain=run or "", c=c)
    return Finding(Code.PAYLOAD_CHANGED, at, f"the stored {name} is not what the entry commits to", seq)
