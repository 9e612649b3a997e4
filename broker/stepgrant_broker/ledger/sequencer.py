"""The sequencer: entries become leaves, the tree's head is signed, witnesses are asked; one at a time per log.

Rules:
* Integration goes in small batches, each one short transaction, and steps back while others commit (`pacing.py`), so
  that no grant waits for it. Several sequencers may run beside each other: the store lets one append, the others find
  their batch gone.
* A round takes what waits when it begins, and ends after half a second, whatever still waits, so that heads are signed
  under load too; it is then `behind`.
  A slow machine does some batches all the same: what little there was has its place after one round.
* What is signed is read back from the store first. A head that was only in memory when it was signed could be lost in
  a crash, and the log would then sign another one of the same size.
* A head that counts is kept outside the store before anybody is shown it.
* Nothing is appended, signed or kept that does not continue the newest head that counts, here and outside. A database
  that lost commits under a running broker (a failover to a standby that lagged) would otherwise be signed a second
  past, and what shows it written over.
* A head is kept as soon as it is signed; cosignatures come to it later. It *counts* once the witnesses that the
  policy asks for have cosigned it. Without a policy every signed head counts.
* Integrating waits for no witness: heads are shown to them beside it, one at a time, and a witness that is silent
  delays what is shown, never what is recorded.
* After a start the newest older head that counts is looked for once, some heads in each round, on a thread of its own:
  to verify a thousand notes on the event loop would hold up every call.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from stepgrant import tlog
from stepgrant.canonical import b64u_decode
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.log import SignedHead, TreeHead
from stepgrant_broker.domain.restoring import KnownHead, StoreRolledBack, follows
from stepgrant_broker.ledger.growing import Grower
from stepgrant_broker.ledger.newest import contradicted
from stepgrant_broker.ledger.pacing import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stepgrant.tlog.policy import LogPolicy
    from stepgrant_broker.domain.log import LogStore
    from stepgrant_broker.domain.ports import Clock, PublicKey, SigningKeys
    from stepgrant_broker.ledger.newest import HeadFile

PURPOSE: Final = "heads"
ROUND_S: Final = 0.5
"""So long a round integrates; then a head is signed."""
AT_LEAST: Final = 16
"""So many batches it does, however long they take."""
LOOK_BACK: Final = 200
"""So many older heads a round looks at, until one that counts is found or there are no more."""
NO_LEAVES: Final = 1
FIX: Final = (
    "stop every broker and put the newer database back; or, if this one is all that is left, take it as it is with: "
    "stepgrant db restored"
)


class Witnesses(Protocol):
    """Whoever cosigns heads."""

    policy: LogPolicy

    async def cosign(self, head: tlog.Head, note: tlog.Note) -> Sequence[tlog.NoteSignature]:
        """The cosignatures that were to be had now, each verified."""


class Sequencer:
    """One log's sequencer in this process. `origin` is the log's name; `outside`: where the newest head is kept."""

    def __init__(
        self,
        store: LogStore,
        signer: SigningKeys,
        clock: Clock,
        origin: str,
        *,
        witnesses: Witnesses | None = None,
        outside: HeadFile | None = None,
    ) -> None:
        self.origin = origin
        self.counted: SignedHead | None = None
        """The newest head that counts, as far as this process knows."""
        self.behind = False
        """Whether the last round ended before there was nothing that waited."""
        self.rolled_back: str | None = None
        """Why the store does not continue what was seen of it, while it does not."""
        self._store = store
        self._pace, self._grower = Pace(lambda: store.commits), Grower()
        self._signer = signer
        self._clock = clock
        self._witnesses = witnesses
        self._outside = outside
        self._shown: tuple[SignedHead, KnownHead | None] | None = None
        """The newest head, for witnesses, with what was known outside when it was signed."""
        self._out: SignedHead | None = None
        """The newest head that witnesses were shown, while it does not count: nothing is signed beside it."""
        self._look_below: int | None = None
        """Older heads from this size on were looked at (`_look_back`)."""
        self._one_at_a_time = asyncio.Lock()
        self._asking = asyncio.Lock()

    async def round(self) -> int:
        """Integrate, and then show the head to witnesses; how many leaves were integrated here. Raises as both."""
        integrated = await self.integrate()
        await self.show()
        return integrated

    async def integrate(self) -> int:
        """Integrate what waits, sign the head if it moved; how many leaves were integrated here.

        Raises `StoreUnavailable`, `SignerUnavailable`, `TreeDamaged`; `StoreRolledBack`, and nothing was signed.
        """
        async with self._one_at_a_time:
            with self._told():
                integrated = await self._integrate()
                # Before the tree is read: a head is kept after it is durable, so none is ahead of what is read then.
                known = None if self._outside is None else await asyncio.to_thread(self._outside.read)
                head = await self._signed(known)
                self._shown = None
                if head is not None and not await self._counts_already(head):
                    if self._witnesses is None:
                        await self._counts(head, known)
                    else:
                        self._shown = head, known
            self.rolled_back = None
            return integrated

    async def show(self) -> None:
        """Let witnesses see the newest head, if it does not count yet. Raises as `integrate`."""
        async with self._asking:
            if self._witnesses is None or self._shown is None:
                return
            head, known = self._shown
            self._out = head
            cosigned = await self._cosigned(head, self._witnesses)
            if cosigned is not head:
                async with self._one_at_a_time:
                    with self._told():
                        head = await self._published(cosigned, known)
            if not await asyncio.to_thread(self._enough, head):
                await self._look_back(head.size)
                return
            async with self._one_at_a_time:
                with self._told():
                    await self._counts(head, known)
                    self._out = None

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StoreRolledBack as fault:
            self.rolled_back = fault.detail
            raise

    async def _integrate(self) -> int:
        integrated, done, end = 0, 0, time.monotonic() + ROUND_S
        self.behind = False
        self._pace.enter()
        while done < AT_LEAST or time.monotonic() < end:
            most = self._pace.batch()
            tail = await self._store.log_tail(most)
            if not done:
                await self._refuse_another_past(tail.head)
            if not tail.leaves:
                return integrated
            growth = await asyncio.to_thread(self._grower.grow, tail, self._clock.now())
            if not await self._store.log_append(growth):
                return integrated  # another sequencer is at it
            integrated, done = integrated + len(growth.leaves), done + 1
            if len(tail.leaves) < most:
                return integrated  # what came meanwhile is the next round's: to run after it costs a commit each time
            await self._pace.rest()
        self.behind = True
        return integrated

    async def _refuse_another_past(self, head: TreeHead, outside: KnownHead | None = None) -> None:
        """Raises `StoreRolledBack` unless this end of the tree continues what counts, here and `outside`."""
        counted = self.counted
        here = None if counted is None else KnownHead(self.origin, counted.size, counted.root, "this process")
        out = None if self._out is None else KnownHead(self.origin, self._out.size, self._out.root, "this process")
        # Mostly they are one head, whose root is hashed anew from the store's tiles each time.
        heads = {(one.origin, one.size, one.root): one for one in (outside, out, here) if one is not None}
        for known in reversed(heads.values()):
            why = await contradicted(self._store, self.origin, known, self.keys, head=head)
            if why is not None and follows(known.origin, self.origin):
                raise StoreRolledBack(f"the log has another name by now ({known.origin!r}): restart this broker")
            if why is not None:
                told = f"the store lost commits under this broker: {why}; {FIX}"
                raise StoreRolledBack(told, size=head.size, known_size=known.size)

    async def _signed(self, known: KnownHead | None) -> SignedHead | None:
        """The newest head, signed; None while the tree is empty. `known`: the head outside."""
        head = (await self._store.log_tail(NO_LEAVES)).head
        await self._refuse_another_past(head, known)
        newest = await self._store.log_published()
        if head.size == 0 or (newest is not None and newest.size >= head.size and await self._is_ours(newest)):
            return newest
        signed = SignedHead(head.size, head.root, head.ts, await self._sign(head))
        return await self._store.log_publish(signed, self.origin)

    async def _is_ours(self, head: SignedHead) -> bool:
        """False for one that was signed before a restore, under another name, or by keys that were revoked since."""
        if not head.note.startswith(f"{self.origin}\n".encode()):
            return False
        try:
            known = {(key.name, key.id) for key in await self.keys()}
            return any((one.name, one.key_id) in known for one in tlog.read_note(head.note).signatures)
        except (SignerUnavailable, tlog.NoteInvalid):
            return True  # Nothing could be signed anew, or it was changed at rest: it stays, for whoever checks.

    async def _sign(self, head: TreeHead) -> bytes:
        text = tlog.Head(self.origin, head.size, head.root).text
        signatures = await self._signer.sign_all(PURPOSE, text.encode())
        keys = {known.kid: self._key(known) for known in await self._signer.public_keys(PURPOSE)}
        if not signatures or any(one.kid not in keys for one in signatures):
            raise SignerUnavailable("the signer signed a head with a key that it does not publish")
        named = [(keys[one.kid], one.value) for one in signatures]
        return tlog.Note(text, tuple(tlog.NoteSignature(key.name, key.id, value) for key, value in named)).encoded()

    def renamed(self, origin: str) -> Sequencer:
        """The same log under the name that a restore gave it; without witnesses, and nothing is kept outside."""
        return Sequencer(self._store, self._signer, self._clock, origin)

    async def empty_head(self) -> bytes:
        """A signed head of no entries, which every other one continues: to ask what others remember of this log.

        Raises `SignerUnavailable`.
        """
        return await self._sign(TreeHead())

    async def keys(self) -> list[tlog.NoteKey]:
        """The log's own keys, newest first, as verifiers know them. Raises `SignerUnavailable`."""
        return [self._key(known) for known in await self._signer.public_keys(PURPOSE)]

    def _key(self, known: PublicKey) -> tlog.NoteKey:
        return tlog.note_key(self.origin, tlog.ED25519, b64u_decode(str(known.jwk["x"])))

    async def _counts_already(self, head: SignedHead) -> bool:
        counted = self.counted
        return counted is not None and counted.size >= head.size and await self._is_ours(counted)

    async def _cosigned(self, head: SignedHead, witnesses: Witnesses) -> SignedHead:
        """The head with the cosignatures that are to be had now; as it was, where it has enough."""
        if await asyncio.to_thread(self._enough, head):
            return head
        note = tlog.read_note(head.note)
        added = await witnesses.cosign(tlog.read_head(note.text, self.origin), note)
        known = {(one.name, one.key_id) for one in note.signatures}
        more = [one for one in added if (one.name, one.key_id) not in known]
        if not more:
            return head
        return replace(head, note=tlog.Note(note.text, (*note.signatures, *more)).encoded())

    async def _published(self, head: SignedHead, known: KnownHead | None) -> SignedHead:
        """It as it is in the store then. Witnesses take their time: a store that went back meanwhile is given nothing.

        Raises `StoreRolledBack`. A head that counts is still kept outside, if no replica moved that file meanwhile.
        """
        try:
            await self._refuse_another_past((await self._store.log_tail(NO_LEAVES)).head)
        except StoreRolledBack:
            if await asyncio.to_thread(self._enough, head):
                await self._counts(head, known)
            raise
        return await self._store.log_publish(head, self.origin)

    async def _counts(self, head: SignedHead, known: KnownHead | None) -> None:
        while self._outside is not None:
            found = await asyncio.to_thread(self._outside.keep, head.note, known)
            if found is None:
                break
            # Another replica has kept one meanwhile.
            await self._refuse_another_past((await self._store.log_tail(NO_LEAVES)).head, found)
            known = found
        self.counted = head

    async def _look_back(self, size: int) -> None:
        """After a start: the newest head below this size that counts, if it is among the next ones to be looked at."""
        if self.counted is not None or self._look_below == 0:
            return
        below = size if self._look_below is None else self._look_below
        heads = await self._store.log_published_before(below, LOOK_BACK)
        found = await asyncio.to_thread(lambda: next(filter(self._enough, heads), None))
        self._look_below = heads[-1].size if len(heads) == LOOK_BACK else 0
        if found is not None:
            self.counted = found

    def _enough(self, head: SignedHead) -> bool:
        try:
            if self._witnesses is not None:
                self._witnesses.policy.check(tlog.read_note(head.note))
        except (tlog.NoteInvalid, tlog.WitnessesMissing):
            return False
        return True
