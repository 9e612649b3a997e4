"""Steps that are found by their action: which ones, how many, and what comes with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.store.adapters import AnyStore
from conformance.store.making import Chain, a_grant, a_payload, a_step, an_approval
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.state import FailStatus, IdSource, Step, StepState
from stepgrant_broker.domain.writes import Query, Sought

EPOCH = 3
CALL = {"id_source": IdSource.CALL_ID}
DONE = {"state": StepState.COMPLETED, **CALL}
SOUGHT = Sought("pay", "d_c", "r_c", lost=True, doubt=True)


def chain_at(epoch: int = EPOCH) -> Chain:
    return Chain.of_run(epoch=epoch)


async def found(store: AnyStore, chain: Chain, sought: Sought = SOUGHT, step: str = "new") -> set[str]:
    view = (await store.load(Query(chain.tenant, run=chain.run, step=step, sought=sought))).view
    return set(view.steps)


async def is_found(store: AnyStore, sought: Sought, **values: Any) -> bool:  # noqa: ANN401 - fields of a step
    """Whether a step of these values, alone in its run, is found."""
    chain = chain_at()
    step = a_step(chain.the_run, **values)
    await store.commit(chain.adds(1, rows=(step,)))
    return await found(store, chain, sought) == {step.key}


@pytest.mark.parametrize(
    ("values", "lost", "doubt"),
    [
        ({"state": StepState.IN_DOUBT}, True, True),
        ({"state": StepState.IN_DOUBT, "resource_c": "other"}, True, True),
        ({"state": StepState.IN_DOUBT, "digest_c": "other", "resource_c": "r_c"}, False, True),
        ({"state": StepState.IN_DOUBT, "digest_c": "other", "resource_c": "r_c", "epoch": EPOCH}, False, False),
        ({"state": StepState.IN_DOUBT, "digest_c": "other"}, False, False),
        ({"state": StepState.IN_DOUBT, "tool": "other", "resource_c": "r_c"}, False, False),
        ({"state": StepState.IN_DOUBT, "adopted_epoch": EPOCH}, False, True),
        ({"state": StepState.STARTED, "effect": Effect.IDEMPOTENT}, True, False),
        ({"state": StepState.SUSPENDED, "effect": Effect.IDEMPOTENT}, True, False),
        ({"state": StepState.FAILED, "effect": Effect.IDEMPOTENT, "fail_status": FailStatus.UNKNOWN}, True, False),
        ({"state": StepState.FAILED, "effect": Effect.IDEMPOTENT, "fail_status": FailStatus.FAILED}, False, False),
        ({"state": StepState.STARTED, "effect": Effect.READ}, False, False),
        ({"state": StepState.STARTED}, False, False),
        ({"state": StepState.PREPARED}, False, False),
        ({"state": StepState.PREPARED, "duplicate_of": "s"}, True, False),
        ({"state": StepState.DENIED, "duplicate_of": "s"}, True, False),
        ({"state": StepState.AWAITING_APPROVAL, "duplicate_of": "s", "duplicate": "run"}, True, False),
        ({"state": StepState.PREPARED, "duplicate_of": "s", "started_ever": True}, False, False),
        ({"state": StepState.ADOPTED, "same_as": "s"}, False, False),
        (DONE, True, False),
        ({**DONE, "id_source": IdSource.EXPLICIT}, False, False),
        ({**DONE, "replayed_epoch": EPOCH}, False, False),
        ({**DONE, "adopted_epoch": EPOCH}, False, False),
        ({**DONE, "replayed_epoch": EPOCH - 1, "adopted_epoch": EPOCH - 1}, True, False),
        ({**DONE, "digest_c": "other"}, False, False),
        ({**DONE, "tool": "other"}, False, False),
        ({"state": StepState.RECORDED, **CALL, "recorded": True}, False, False),
    ],
)
async def test_what_is_found(store: AnyStore, values: dict[str, Any], *, lost: bool, doubt: bool) -> None:
    assert await is_found(store, replace(SOUGHT, doubt=False), **values) is lost
    assert await is_found(store, replace(SOUGHT, lost=False), **values) is doubt
    assert not await is_found(store, replace(SOUGHT, lost=False, doubt=False), **values)


async def test_no_resource_is_a_resource_like_others(store: AnyStore) -> None:
    other = {"state": StepState.IN_DOUBT, "digest_c": "other"}
    assert await is_found(store, replace(SOUGHT, resource_c=None), **other)
    assert not await is_found(store, replace(SOUGHT, resource_c=None), **other, resource_c="r_c")


async def test_steps_of_other_runs_and_tenants_are_not_found(store: AnyStore) -> None:
    chain, other, foreign = chain_at(), chain_at(), Chain.of_run("globex", epoch=EPOCH)
    for one in (other, foreign):
        steps = [a_step(one.the_run, **values) for values in (DONE, {"state": StepState.IN_DOUBT})]
        await store.commit(one.adds(1, rows=tuple(steps)))
    await store.commit(chain.adds(1))
    assert await found(store, chain) == set()
    named = Query("acme", run=foreign.run, step="new", sought=SOUGHT)
    assert (await store.load(named)).view.steps == {}


async def test_the_oldest_are_found_however_many_there_are(store: AnyStore) -> None:
    chain = chain_at()
    run = chain.the_run
    newer = [a_step(run, state=StepState.IN_DOUBT, epoch=EPOCH) for _ in range(8)]
    doubts = [a_step(run, state=StepState.IN_DOUBT, epoch=epoch) for epoch in (2, 2, 1)]
    done = [a_step(run, replayed_epoch=epoch, **DONE) for epoch in (2, 1, 1)]
    for rows in (newer, doubts, done):
        await store.commit(chain.adds(1, rows=tuple(rows)))
    keys = await found(store, chain)
    assert {step.key for step in doubts} <= keys
    assert keys.isdisjoint(step.key for step in (done[0], done[2]))
    assert done[1].key in keys
    assert len(keys) == 5


async def test_what_belongs_to_them_comes_along(store: AnyStore) -> None:
    chain = chain_at()
    run = chain.the_run
    result, error, hidden = a_payload(), a_payload(), a_payload()
    done = a_step(run, result_c=result.c, **DONE)
    left = a_step(run, state=StepState.IN_DOUBT, error_c=error.c)
    other = a_step(run, state=StepState.COMPLETED, result_c=hidden.c)
    grants = {step.key: a_grant(run, step.key, epoch=EPOCH) for step in (done, left, other)}
    approvals = {step.key: an_approval(run, step.key) for step in (done, left, other)}
    rows = (done, left, other, *grants.values(), *approvals.values())
    await store.commit(chain.adds(1, rows=rows, payloads=(result, error, hidden)))
    loaded = await store.load(Query("acme", run=run.id, step="new", sought=SOUGHT))
    steps: dict[str, Step] = {step.key: step for step in (done, left)}
    assert loaded.view.steps == steps
    assert loaded.view.grants == {grants[key].jti: grants[key] for key in steps}
    assert loaded.view.approvals == {approvals[key].id: approvals[key] for key in steps}
    assert loaded.payloads == {result.c: result, error.c: error}


async def test_the_named_step_comes_as_before(store: AnyStore) -> None:
    chain = chain_at()
    mine = a_step(chain.the_run, **DONE)
    await store.commit(chain.adds(1, rows=(mine,)))
    assert await found(store, chain, step=mine.key) == {mine.key}
