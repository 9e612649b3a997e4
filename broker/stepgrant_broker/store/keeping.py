"""The half of a store that writes without write sets: what passes with time, and the log; and how a store ends."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec.structs import replace

from stepgrant.merkle import EMPTY_ROOT
from stepgrant_broker.domain.refusals import VersionMoved
from stepgrant_broker.store import erasing, keys, log, resting, rewrapping
from stepgrant_broker.store.forgetting import STRETCHES, Forgetting, Run
from stepgrant_broker.store.reading import Reading
from stepgrant_broker.store.statements import PORTION

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from stepgrant_broker.domain.keys import SigningKey
    from stepgrant_broker.domain.log import Growth, SignedHead
    from stepgrant_broker.domain.ports import SecretRecord, Wrapped
    from stepgrant_broker.domain.rewrapping import Place
    from stepgrant_broker.domain.writes import ChainKey, Loaded, Query, WriteSet
    from stepgrant_broker.store.erasing import ErasingQueries
    from stepgrant_broker.store.inbox import Inbox
    from stepgrant_broker.store.remembering import Memory
    from stepgrant_broker.store.rewrapping import RewrapStatements

T = TypeVar("T")


class _Readers(Protocol):
    @property
    def threads(self) -> Sequence[threading.Thread]:
        """Those that look."""

    def close(self) -> None:
        """Refuse new work and let the threads come to their end."""


class _Writer(Protocol):
    @property
    def thread(self) -> threading.Thread:
        """The one that writes."""

    @property
    def commits(self) -> int:
        """How many durable transactions there were."""

    @property
    def commits_apart(self) -> int:
        """How many of them the log took, which `commits` leaves out."""

    @property
    def inbox(self) -> Inbox[Any]:
        """Its queue."""


class Keeping(Reading):
    """Both stores share it. All raise `StoreUnavailable` and `FateUnknown`."""

    _rest_after: resting.Place = resting.START
    _readers: _Readers
    _writer: _Writer
    _forgetting: Forgetting
    _rewrap: RewrapStatements
    _memory: Memory
    _erasing: ErasingQueries
    _erased: dict[tuple[str, str], None]
    """Runs that are erased, of which something may be left."""
    _looked = False
    """Whether this process has looked for what others left of erased runs."""

    @abstractmethod
    async def _do(self, work: Callable[[Run], T], *, apart: bool = False) -> T:
        """Run this in a transaction of the writer's thread; what it raises leaves nothing of it."""

    @property
    def commits(self) -> int:
        """How many durable transactions there were, but for those of the log."""
        return self._writer.commits

    @property
    def log_commits(self) -> int:
        """How many durable transactions the log took for itself."""
        return self._writer.commits_apart

    @property
    def waiting(self) -> int:
        """How much waits for the one that writes, or is being done by it."""
        return self._writer.inbox.load

    async def let_rest(self) -> int:
        """Note some of the runs that nobody has to look at again; how many notes were written (`resting.py`)."""
        after, now = self._rest_after, self._time()
        found = await self._run(lambda: resting.look(self._sql, after, now))
        noted = 0
        for some in found.portions():
            noted += await self._do(lambda run, some=some: resting.note(self._sql, run, some), apart=True)  # type: ignore[misc]
        self._rest_after = found.after
        return noted

    async def forget_expired(self, now: int) -> int:
        """Drop proof uses and stored answers whose time is over, in small transactions; how many.

        Of a large table one call goes over a part, and the next goes on from there.
        """
        await self._clear_left()
        gone = await self._forget(lambda run: self._forgetting.bodies(run, now))
        for walk in self._forgetting.walks:
            gone += await self._forget(lambda run, walk=walk: self._forgetting.stretch(run, walk, now))  # type: ignore[misc]
        return gone

    async def _forget(self, some: Callable[[Run], tuple[int, bool]]) -> int:
        gone = 0
        for _ in range(STRETCHES):
            dropped, done = await self._do(some)
            gone += dropped
            if done:
                break
        return gone

    async def _destroyed(self, writes: WriteSet) -> tuple[WriteSet, tuple[str, ...]]:
        """The set with the stored answers that go with it, and those that are too many for its transaction."""
        run = writes.run or ""
        if writes.answers_over:
            # To look for them is to look through all that the tenant has, a tenth of a second and more.
            return writes, ()
        scopes = await self._run(lambda: erasing.answers_of(self._erasing, writes.tenant, run))
        return replace(writes, answers_gone=scopes[:PORTION]), scopes[PORTION:]

    async def _clear(self, tenant: str, run: str, scopes: tuple[str, ...] = ()) -> None:
        """Drop what did not fit into the commit that erased the run."""
        self._erased[tenant, run] = None
        sql = self._forgetting.sql
        for start in range(0, len(scopes), PORTION):
            some = scopes[start : start + PORTION]
            await self._do(lambda do, some=some: erasing.drop_answers(sql, do, tenant, some), apart=True)  # type: ignore[misc]
        while not await self._do(lambda do: erasing.drop_payloads(sql, do, tenant, run), apart=True):
            continue
        del self._erased[tenant, run]

    async def _clear_left(self) -> None:
        """What this process did not get to, and once what others left behind."""
        for tenant, run in tuple(self._erased):
            await self._clear(tenant, run)
        while not self._looked:
            left = await self._run(lambda: erasing.left_behind(self._erasing))
            for tenant, run in left:
                await self._clear(tenant, run)
            self._looked = not left

    async def log_origin(self, proposed: str) -> str:
        """The log's name for ever: the one it has, or this one for a log that begins now."""
        return await self._do(lambda run: log.begin(self._log, run, proposed, EMPTY_ROOT), apart=True)

    async def log_append(self, growth: Growth) -> bool:
        """Append durably; False, and nothing is there, if the tree is not at `growth.before` or a leaf has an index."""
        try:
            await self._do(lambda run: log.append(self._log, run, growth), apart=True)
        except VersionMoved:
            return False
        return True

    async def log_publish(self, head: SignedHead, origin: str | None = None) -> SignedHead:
        """Keep a signed head; it as it is then, with all signatures.

        Raises `VersionMoved` if one of this size has another root, or the log another name.
        """
        return await self._do(lambda run: log.publish(self._log, run, head, origin), apart=True)

    async def log_rename(self, before: str, after: str) -> None:
        """Give the log another name, once; again changes nothing. Raises `VersionMoved` if it has neither."""
        await self._do(lambda run: log.rename(self._log, run, before, after), apart=True)

    async def key_seen(self, key: SigningKey) -> None:
        """Register a key, and end those of its purpose with lower numbers; one that is there stays as it is."""
        await self._do(lambda run: keys.seen(self._keys, run, key), apart=True)

    async def key_revoked(self, purpose: str, kid: str, at: int, size: int) -> bool:
        """Revoke a registered key; False if it was revoked before, or is not there."""
        return await self._do(lambda run: keys.revoked(self._keys, run, purpose, kid, at, size), apart=True)

    async def chain_keys_under_others(self, key_id: str, after: Place, limit: int) -> tuple[ChainKey, ...]:
        """Keys of chains that are wrapped by another key than this, behind (tenant, run)."""
        return await self._run(lambda: rewrapping.chain_keys(self._rewrap, key_id, after, limit))

    async def secrets_under_others(self, key_id: str, after: Place, limit: int) -> tuple[SecretRecord, ...]:
        """Static secrets that are wrapped by another key than this, behind (tenant, name)."""
        return await self._run(lambda: rewrapping.secrets(self._rewrap, key_id, after, limit))

    def recall(self, query: Query) -> Loaded | None:
        """As `Store`."""
        return self._memory.recall(query)

    async def rewrap(self, pairs: Sequence[tuple[ChainKey | SecretRecord, Wrapped]]) -> int:
        """Replace what each wraps, if it is still the same; how many were."""
        self._memory.clear()
        return await self._do(lambda run: rewrapping.rewrap(self._rewrap, run, pairs), apart=True)

    async def seal_clear(self, after: Place, limit: int) -> tuple[int, Place | None]:
        """Seal the payloads in clear among the next, behind (tenant, chain, c): how many, and where to go on."""
        return await self._do(
            lambda run: rewrapping.seal_clear(self._rewrap, run, self._seal, after, limit), apart=True
        )

    @abstractmethod
    async def compact(self) -> None:
        """Let nothing of rows that were written over stay in the database's file, where that is in our power."""

    async def close(self) -> None:
        """Finish what is queued and stop. Later calls raise `StoreUnavailable`; closing again does nothing."""
        self._writer.inbox.close()
        self._readers.close()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in (*self._readers.threads, self._writer.thread):
            thread.join()
