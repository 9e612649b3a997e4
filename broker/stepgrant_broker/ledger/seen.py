"""Whether the store still has all that was seen of its log outside: in the head file, and by witnesses.

Asked at each start of a broker, and by `stepgrant db restored`. A broker that runs compares each head that it is about
to sign (`sequencer.py`): a failover to a standby that lagged puts its store back under it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant import tlog
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.domain.restoring import KnownHead, StoreRolledBack
from stepgrant_broker.ledger.newest import contradicted

if TYPE_CHECKING:
    from stepgrant_broker.domain.log import LogStore
    from stepgrant_broker.ledger.newest import HeadFile
    from stepgrant_broker.ledger.sequencer import Sequencer
    from stepgrant_broker.ledger.witnesses import HttpWitnesses

TRIES: Final = 3
FIX: Final = (
    "put the newer database back; or, if this one is all that is left, take it as it is with: stepgrant db restored"
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A head that somebody knows and the store does not continue, and why not, in words."""

    known: KnownHead
    why: str


class Seen:
    """What was seen of one log outside its store."""

    def __init__(
        self, store: LogStore, sequencer: Sequencer, file: HeadFile, witnesses: HttpWitnesses | None = None
    ) -> None:
        self.file = file
        self._store = store
        self._sequencer = sequencer
        self._witnesses = witnesses

    async def refuse_rolled_back(self, *, ask_witnesses: bool) -> None:
        """Raises `StoreRolledBack` with the sizes, `StoreUnavailable` for a head file that cannot be used."""
        found = await self.contradictions(ask_witnesses=ask_witnesses)
        if found:
            known, size = found[0].known, (await self._store.log_tail(1)).head.size
            raise StoreRolledBack(f"the store was rolled back: {found[0].why}; {FIX}", size=size, known_size=known.size)

    async def contradictions(self, *, ask_witnesses: bool) -> list[Contradiction]:
        """What the store does not continue. Raises `StoreUnavailable`, `SignerUnavailable`."""
        found: list[Contradiction] = []
        known = await asyncio.to_thread(self.file.read)
        if known is not None:
            why = await contradicted(self._store, self._sequencer.origin, known, self._sequencer.keys)
            if why is not None:
                found.append(Contradiction(known, why))
        if ask_witnesses and self._witnesses is not None:
            found += await self._of_witnesses(self._witnesses)
        return found

    async def settle(self, origin: str) -> str:
        """After a restore: sign a head under the log's new name and keep that outside; the log's new verifier key.

        Raises `StoreUnavailable`, `SignerUnavailable`, `TreeDamaged`.
        """
        renamed = self._sequencer.renamed(origin)
        while await renamed.round():
            continue
        if renamed.counted is not None:
            await asyncio.to_thread(self.file.replace, renamed.counted.note)
        return (await renamed.keys())[0].vkey

    async def _of_witnesses(self, witnesses: HttpWitnesses) -> list[Contradiction]:
        for _ in range(TRIES):
            newest = await self._newest()
            if newest is None:
                break
            head, note = newest
            known = await witnesses.contradictions(head, note)
            if not known or await self._newest() == newest:
                return [Contradiction(one, _why(head, one)) for one in known]
            # Another replica has signed a head meanwhile, which the witness may have seen before we did.
        return []

    async def _newest(self) -> tuple[tlog.Head, tlog.Note] | None:
        """The newest head under the log's name; one of nothing before the first. None: there is none to show."""
        newest = await self._store.log_published()
        try:
            signed = await self._sequencer.empty_head() if newest is None else newest.note
            return tlog.read_signed_head(signed, self._sequencer.origin)
        except SignerUnavailable:
            _log.warning("witnesses_not_asked", why="no key signs now")
        except tlog.HeadUnreadable:
            _log.warning("witnesses_not_asked", why="the newest head has the log's name of before a restore")
        return None


def _why(head: tlog.Head, known: KnownHead) -> str:
    if known.size > head.size:
        return f"its newest signed head has {head.size} entries, but {known.where} has seen {known.size}"
    return f"the first {known.size} of its {head.size} entries are not those that {known.where} has seen"
