"""`ledger verify` beside a broker that works, within one chain: what comes between two of its pages is no finding."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from fakes.hand import hand
from fakes.ledgers import Ledger
from logs import ORIGIN
from stepgrant_broker.domain.reads import StoredEntry
from stepgrant_broker.ledger import chain
from stepgrant_broker.ledger.findings import Code, entry, row
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.usecases.operators import create_operator


class Paging(SqliteStore):
    """A store that lets a test do something once, after the first page of entries of a chain was read."""

    chain: str | None = None
    between: Callable[[], Awaitable[object]] | None = None

    async def entries(
        self, tenant: str, run: str | None, *, after: int = -1, limit: int = 100
    ) -> tuple[StoredEntry, ...]:
        found = await super().entries(tenant, run, after=after, limit=limit)
        act = self.between
        if act is not None and run == self.chain and after == -1:
            self.between = None
            await act()
        return found


@pytest.fixture
async def paging(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Paging]:
    """Over a ledger of which nothing has its place in the tree yet, read two entries at a time."""
    monkeypatch.setattr(chain, "PAGE", 2)
    store = Paging(ledger.file, clock=ledger.clock, seal=Seal(ledger.wrap))
    await store.log_origin(ORIGIN)
    yield store
    await store.close()


@pytest.mark.parametrize("of_run", [True, False])
async def test_leaves_that_come_between_two_pages_of_a_chain_are_no_disorder(
    ledger: Ledger, paging: Paging, *, of_run: bool
) -> None:
    paging.chain = ledger.run if of_run else None
    paging.between = Sequencer(paging, ledger.signer, ledger.clock, ORIGIN).round
    assert [str(one) async for one in LedgerCheck(paging, paging, ledger.wrap).findings()] == []
    assert (await paging.log_tail(1)).head.size > 50


async def test_a_leaf_that_was_taken_away_is_disorder_all_the_same(ledger: Ledger, paging: Paging) -> None:
    await Sequencer(paging, ledger.signer, ledger.clock, ORIGIN).round()
    ledger.change("UPDATE entries SET leaf_index = NULL WHERE chain = ? AND seq = 7", ledger.run)
    found = [one async for one in LedgerCheck(paging, paging, ledger.wrap).findings()]
    assert [(one.code, one.at) for one in found] == [(Code.LEAF_ORDER, entry("acme", ledger.run, 8))]


async def test_what_people_do_while_the_tenants_own_chain_is_read_is_no_finding(tmp_path: Path) -> None:
    async with hand(tmp_path) as held:
        store = Paging(tmp_path / "store" / "stepgrant.db", clock=held.clock, seal=Seal(held.ports.wrap))
        check = LedgerCheck(store, store, held.ports.wrap)

        async def hire() -> None:
            await create_operator(held.ports, "acme", held.operator, name="Eve", roles=["approver"])

        store.between = hire
        assert [str(one) async for one in check.findings()] == []
        assert check.progress.entries == len(await held.entries(None))
        assert len(await store.people("acme")) == 2
        await store.close()


async def test_a_tenants_chain_that_never_stands_still_is_said_to_be_unchecked(tmp_path: Path) -> None:
    """Whoever changes a table, and adds an entry each time that it is read, is not taken for somebody who works."""
    async with hand(tmp_path) as held:
        store = Paging(tmp_path / "store" / "stepgrant.db", clock=held.clock, seal=Seal(held.ports.wrap))

        async def hire() -> None:
            await create_operator(held.ports, "acme", held.operator, name="Eve", roles=["approver"], another_token=True)
            store.between = hire

        store.between = hire
        (found,) = [one async for one in LedgerCheck(store, store, held.ports.wrap).findings()]
        assert (found.code, found.at) == (Code.NOT_CHECKED, row("tenants", id="acme"))
        await store.close()
