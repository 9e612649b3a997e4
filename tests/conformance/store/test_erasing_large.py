"""A large run is erased in portions: nobody waits for it, and whatever stopped it in between, the rest goes later."""

from __future__ import annotations

from typing import Any, Final

import pytest

from conformance.store.adapters import AnyStore, Database
from conformance.store.making import NOW, Chain, SetClock, a_payload, an_answer
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.domain.writes import ChainKey
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store import keeping
from stepgrant_broker.store.statements import PORTION

ENDED: Final[dict[str, Any]] = {"state": RunState.COMPLETED, "ended_at": NOW, "erased_at": NOW + 1}
WRAP: Final = LocalWrap([b"w" * 32], b"r" * 32)
MANY: Final = 2 * PORTION + 300


def key_of(chain: Chain) -> ChainKey:
    """The key that goes."""
    run = str(chain.run)
    return ChainKey("acme", run, WRAP.wrap(b"k" * 32, aad.chain_key("acme", run)))


async def a_run(store: AnyStore, values: int, answers: int = 0) -> Chain:
    """A run with so many values and stored answers."""
    chain = Chain.of_run()
    payloads = [a_payload(f'"{number}"'.encode()) for number in range(values)]
    await store.commit(chain.adds(1, rows=(key_of(chain),), payloads=payloads))
    for _ in range(answers):
        await store.commit(chain.adds(1, answer=an_answer(chain, expires_at=NOW + 99)))
    return chain


def left(database: Database, chain: Chain) -> int:
    """How many values of the run are there."""
    return sum(row[1] == chain.run for row in database.snapshot()["payloads"])


async def test_all_of_it_goes_and_no_transaction_drops_more_than_a_portion(
    store: AnyStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PORTION", 2)  # of answers: each has to come with a commit of its own
    chain, other = await a_run(store, MANY, 5), await a_run(store, 3, 1)
    seen = [left(database, chain)]
    real = store._do  # type: ignore[attr-defined]

    async def look(work: Any, *, apart: bool = False) -> Any:  # noqa: ANN401 - as of the store
        seen.append(left(database, chain))
        return await real(work, apart=apart)

    monkeypatch.setattr(store, "_do", look)
    before = store.commits
    await store.commit(chain.adds(1, change=ENDED, destroy=True))
    assert store.commits == before + 1, "the entry and the key, and all that fits"
    steps = [was - now for was, now in zip(seen, [*seen[1:], left(database, chain)], strict=True)]
    assert sum(steps) == MANY
    assert max(steps) == PORTION
    found = database.snapshot()
    assert [row[1] for row in found["payloads"]] == [other.run] * 3
    assert len(found["answers"]) == 1


async def test_what_the_process_did_not_get_to_goes_with_its_next_sweep(
    store: AnyStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is erased all the same: the key is gone, and who asked is told so."""
    await store.forget_expired(NOW)
    chain = await a_run(store, MANY)

    async def full(*_: object, **__: object) -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(store, "_do", full)
        await store.commit(chain.adds(1, change=ENDED, destroy=True))
    assert left(database, chain) == MANY - PORTION
    assert await store.chain_key("acme", str(chain.run)) is None
    await store.forget_expired(NOW)
    assert left(database, chain) == 0


async def test_what_a_crash_left_goes_with_the_first_sweep_of_a_process(
    store: AnyStore, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, kept = await a_run(store, MANY), await a_run(store, 3)

    async def dies(*_: object) -> None:
        raise StoreUnavailable("killed")

    monkeypatch.setattr(store, "_clear", dies)
    await store.commit(chain.adds(1, change=ENDED, destroy=True))
    assert left(database, chain) == MANY - PORTION
    second = database.open(clock)
    try:
        await second.forget_expired(NOW)
    finally:
        await second.close()
    assert (left(database, chain), left(database, kept)) == (0, 3)
