"""What passes with time goes: proofs, stored answers and their bodies. What an entry commits to stays."""

from __future__ import annotations

from typing import Any

from conformance.store.adapters import AnyStore, Database
from conformance.store.making import (
    NOW,
    Chain,
    a_payload,
    a_proof,
    an_answer,
)
from stepgrant_broker.domain.writes import Query


async def test_forget_expired(store: AnyStore, database: Database) -> None:
    """Proofs, answers and the answers' bodies go when their time is over; what entries commit to stays."""
    chain = Chain.of_run()
    kept, body, shared = a_payload(c="kept"), a_payload(b'"old"', c="body"), a_payload(b'"shared"', c="shared")
    old, longer = NOW + 10, NOW + 99
    sets: list[dict[str, Any]] = [
        {"proof": a_proof(old), "answer": an_answer(chain, answer_c="body", expires_at=old), "payloads": (kept, body)},
        {"proof": a_proof(old), "answer": an_answer(chain, answer_c="shared", expires_at=old), "payloads": (shared,)},
        {
            "proof": a_proof(longer),
            "answer": an_answer(chain, answer_c="shared", expires_at=longer),
            "payloads": (shared,),
        },
        {"proof": a_proof(longer), "answer": an_answer(chain, answer_c="kept", expires_at=old), "payloads": (kept,)},
    ]
    for one in sets:
        await store.commit(chain.adds(1, **one))
    assert await store.forget_expired(NOW + 9) == 0
    assert await store.forget_expired(NOW + 10) == 5
    assert await store.forget_expired(NOW + 10) == 0
    snapshot = database.snapshot()
    assert len(snapshot["proofs"]) == 2
    assert len(snapshot["answers"]) == 1
    assert set(await store.payloads("acme", str(chain.run), ["kept", "body", "shared"])) == {"kept", "shared"}
    assert len(await store.entries("acme", chain.run)) == 4


async def test_what_an_entry_commits_to_is_never_forgotten(store: AnyStore) -> None:
    """A body that was only an answer's, and then is committed to by an entry, stays for good."""
    chain, payload = Chain.of_run(), a_payload()
    await store.commit(chain.adds(1, payloads=(payload,), answer=an_answer(chain, answer_c=payload.c, expires_at=NOW)))
    await store.commit(chain.adds(1, payloads=(payload,)))
    await store.forget_expired(NOW + 1)
    assert await store.payloads("acme", str(chain.run), [payload.c]) == {payload.c: payload}


async def test_forget_expired_in_many_small_transactions(store: AnyStore, database: Database) -> None:
    chain = Chain.of_run()
    await store.commit(chain.adds(1))
    for _ in range(2100):
        chain_set = chain.bare(proof=a_proof(NOW))
        await store.commit(chain_set)
    before = store.commits
    assert await store.forget_expired(NOW) == 2100
    assert store.commits > before + 1
    assert database.snapshot()["proofs"] == ()
    assert (await store.load(Query("acme", run=chain.run))).view.run == chain.row
