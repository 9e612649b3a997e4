"""Payloads at rest are sealed under their chain's key, and erasure leaves nothing of them: on every store the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

from changing import replace
from conformance.store.adapters import AnyStore, Database
from conformance.store.making import NOW, Chain, SetClock, a_payload, an_answer
from stepgrant_broker.domain import aad
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.errors import PayloadDamaged, StoreUnavailable
from stepgrant_broker.domain.state import RunState
from stepgrant_broker.domain.writes import ChainKey, Operator, Query, Tenant
from stepgrant_broker.signing.wrap import LocalWrap, WrapError
from stepgrant_broker.store.faults import WriteSetMalformed
from stepgrant_broker.store.sealing import Clear, Seal

MARK = b'"a very personal value"'
WRAP = LocalWrap([b"w" * 32], b"r" * 32)
OTHER = LocalWrap([b"v" * 32], b"r" * 32)


def key_of(tenant: str, run: str, wrap: LocalWrap = WRAP) -> ChainKey:
    return ChainKey(tenant, run, wrap.wrap(b"k" * 32, aad.chain_key(tenant, run)))


@pytest.fixture
async def opened(database: Database, clock: SetClock) -> AsyncIterator[Callable[[Clear | None], AnyStore]]:
    """Opens stores with one seal or another."""
    stores: list[AnyStore] = []

    def make(seal: Clear | None) -> AnyStore:
        stores.append(database.open(clock, seal=seal))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


@pytest.fixture
def store(opened: Callable[[Clear | None], AnyStore]) -> AnyStore:
    return opened(Seal(WRAP))


async def a_sealed_run(store: AnyStore, *payloads: Payload, **more: Any) -> Chain:  # noqa: ANN401 - parts of the set
    """A run with its key and these payloads."""
    chain = Chain.of_run()
    await store.commit(chain.adds(1, rows=(key_of("acme", str(chain.run)),), payloads=payloads, **more))
    return chain


def bytes_in(database: Database, *tables: str) -> bytes:
    found = database.snapshot()
    return repr([found[name] for name in tables or found]).encode()


async def test_what_rests_is_sealed_and_what_is_read_is_not(store: AnyStore, database: Database) -> None:
    payload, later = a_payload(MARK), a_payload(MARK, field="outcome.result")
    chain = await a_sealed_run(store, payload)
    await store.commit(chain.adds(1, payloads=(later,), key=key_of("acme", str(chain.run))))
    assert MARK not in bytes_in(database)
    assert {row[6] for row in database.snapshot()["payloads"]} == {"chain-v1"}
    found = await store.payloads("acme", str(chain.run), [payload.c, later.c, "none"])
    assert found == {payload.c: payload, later.c: later}


async def test_an_answer_is_sealed_and_loaded(store: AnyStore, database: Database) -> None:
    body = a_payload(MARK)
    chain = Chain.of_run()
    answer = an_answer(chain, answer_c=body.c, expires_at=NOW + 1)
    key = key_of("acme", str(chain.run))
    await store.commit(chain.adds(1, rows=(key,), payloads=(body,), answer=answer))
    assert MARK not in bytes_in(database)
    for query in (Query("acme", run=chain.run, answer=answer.scope), Query("acme", answer=answer.scope)):
        assert (await store.load(query)).payloads == {body.c: body}, "also where the run is not asked for"


async def test_people_keep_their_names(store: AnyStore, database: Database) -> None:
    chain, name = Chain("acme", Tenant("acme", 0, GENESIS, 0)), a_payload(b'"Ann of finance"', field="operator.name")
    ann = Operator("opr_1", "acme", name.c, ("operator",), (), "hash", NOW)
    await store.commit(chain.adds(1, rows=(ann, key_of("acme", "")), payloads=(name,)))
    assert b"Ann of" not in bytes_in(database)
    assert await store.operator_by_token("hash") == (ann, "Ann of finance")
    assert await store.operators("acme") == ((ann, "Ann of finance"),)


async def test_rows_of_before_are_read_as_they_are(
    opened: Callable[[Clear | None], AnyStore], database: Database
) -> None:
    payload, sealed = a_payload(MARK), a_payload(b'"new"')
    chain = await a_sealed_run(opened(None), payload)
    assert MARK in bytes_in(database, "payloads")
    store = opened(Seal(WRAP))
    await store.commit(chain.adds(1, payloads=(sealed,), key=key_of("acme", str(chain.run))))
    assert await store.payloads("acme", str(chain.run), [payload.c, sealed.c]) == {
        payload.c: payload, sealed.c: sealed,
    }  # fmt: skip


async def test_a_store_without_keys_does_not_read_what_is_sealed(opened: Callable[[Clear | None], AnyStore]) -> None:
    payload = a_payload(MARK)
    chain = await a_sealed_run(opened(Seal(WRAP)), payload)
    with pytest.raises(StoreUnavailable, match="opened without keys"):
        await opened(None).payloads("acme", str(chain.run), [payload.c])
    with pytest.raises(WrapError):
        await opened(Seal(OTHER)).payloads("acme", str(chain.run), [payload.c])


@pytest.mark.parametrize("moved", ["chain", "c", "field", "form", "body", "nonce", "key_id"])
async def test_what_was_changed_or_moved_does_not_open(opened: Callable[[Clear | None], AnyStore], moved: str) -> None:
    """Each part of its place is bound. Both chains have the same key here, so that the place alone tells."""
    seal = Seal(WRAP)
    store, payload, other = opened(seal), a_payload(MARK), Chain.of_run()
    key = key_of("acme", "run_of_origin")
    (kept,) = seal.sealed(key if moved == "chain" else key_of("acme", str(other.run)), [payload])
    changes: dict[str, dict[str, Any]] = {
        "chain": {}, "c": {"c": "elsewhere"}, "field": {"field": "run.input"}, "form": {"form": "preimage"},
        "body": {"body": kept.body[:-1] + bytes([kept.body[-1] ^ 1])}, "nonce": {"nonce": None},
        "key_id": {"key_id": "chain-v2"},
    }  # fmt: skip
    wrong = replace(kept, **changes[moved])
    await store.commit(other.adds(1, rows=(key_of("acme", str(other.run)),), payloads=(wrong,)))
    with pytest.raises(PayloadDamaged) as refused:
        await store.payloads("acme", str(other.run), [wrong.c])
    assert (refused.value.c, refused.value.payload) == (wrong.c, wrong.field)
    assert MARK.decode() not in str(refused.value)


async def test_nothing_is_written_in_clear_beside_keys(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    with pytest.raises(WriteSetMalformed, match="without the key of their chain"):
        await store.commit(chain.copy().adds(1, payloads=(a_payload(MARK),)))
    with pytest.raises(WriteSetMalformed, match="key of another chain"):
        await store.commit(chain.adds(1, payloads=(a_payload(MARK),), key=key_of("acme", "run_other")))
    assert database.snapshot()["runs"] == ()


ENDED: Final[dict[str, Any]] = {"state": RunState.COMPLETED, "ended_at": NOW, "erased_at": NOW + 1}


async def test_destroying_takes_what_stands_behind_one_run(store: AnyStore, database: Database) -> None:
    """Payloads, sealed or not, answers and key go in one commit with the run's row; other chains keep theirs."""
    mine, other = a_payload(MARK), a_payload(b'"theirs"')
    chain, beside = await a_sealed_run(store, mine), await a_sealed_run(store, other)
    body = a_payload(b'"answer"')
    answer = an_answer(chain, answer_c=body.c, expires_at=NOW + 99)
    await store.commit(chain.adds(1, payloads=(body,), answer=answer, key=key_of("acme", str(chain.run))))
    before = store.commits
    await store.commit(chain.adds(1, change=ENDED, destroy=True))
    assert store.commits == before + 1
    found = database.snapshot()
    assert [row[1] for row in found["payloads"]] == [beside.run]
    keys = {row[1]: row[2:] for row in found["chain_keys"]}
    assert tuple(keys.pop(str(chain.run))) == ("erased------------", bytes(12), bytes(48))
    assert keys.keys() == {beside.run}
    assert found["answers"] == ()
    assert await store.payloads("acme", str(chain.run), [mine.c, body.c]) == {}
    assert await store.payloads("acme", str(beside.run), [other.c]) == {other.c: other}
    loaded = await store.load(Query("acme", run=chain.run, answer=answer.scope))
    assert (loaded.view.run, loaded.key, loaded.answer) == (chain.row, None, None)
    assert await store.chain_key("acme", str(chain.run)) is None
    assert len(await store.entries("acme", chain.run)) == 3


@pytest.mark.parametrize("slip", ["not erased", "payloads", "no row", "the tenant's"])
async def test_only_an_erased_run_is_destroyed(store: AnyStore, database: Database, slip: str) -> None:
    chain = await a_sealed_run(store, a_payload(MARK))
    before = database.snapshot()
    set_ = {
        "not erased": lambda: chain.adds(1, change={**ENDED, "erased_at": None}, destroy=True),
        "payloads": lambda: chain.adds(1, change=ENDED, destroy=True, payloads=(a_payload(),)),
        "no row": lambda: chain.bare(destroy=True),
        "the tenant's": lambda: Chain("acme", Tenant("acme", 0, GENESIS, 0)).adds(1, destroy=True),
    }[slip]()
    with pytest.raises(WriteSetMalformed, match="only an erased run"):
        await store.commit(set_)
    assert database.snapshot() == before


async def test_who_is_erasable(store: AnyStore) -> None:
    """By the end and its outcome, the oldest first; not what goes on, and not what was erased."""
    young, old, failed, erased, going = [Chain.of_run() for _ in range(5)]
    for chain, state, at in (
        (young, RunState.COMPLETED, NOW), (old, RunState.COMPLETED, NOW - 5), (failed, RunState.FAILED, NOW - 9),
        (erased, RunState.COMPLETED, NOW - 9), (going, RunState.OPEN, None),
    ):  # fmt: skip
        gone = {"erased_at": NOW} if chain is erased else {}
        await store.commit(chain.adds(1, change={"state": state, "ended_at": at, **gone}))
    assert await store.erasable("completed", NOW, 9) == (("acme", old.run), ("acme", young.run))
    assert await store.erasable("completed", NOW, 1) == (("acme", old.run),)
    assert await store.erasable("completed", NOW - 1, 9) == (("acme", old.run),)
    assert await store.erasable("failed", NOW, 9) == (("acme", failed.run),)
    assert await store.erasable("cancelled", NOW, 9) == ()
