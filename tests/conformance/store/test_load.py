"""What `load` brings for each way to ask, and what it leaves out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from changing import replace
from conformance.store import strategies
from conformance.store.adapters import AnyStore
from conformance.store.making import (
    NOW,
    Chain,
    SetClock,
    a_grant,
    a_payload,
    a_step,
    an_answer,
    an_approval,
    an_epoch,
    unique,
)
from stepgrant_broker.domain.decisions import Effect, RedeemMode
from stepgrant_broker.domain.entries import GENESIS, Head
from stepgrant_broker.domain.grants import is_open, live_effectful
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.state import ApprovalStatus, Grant, GrantStatus, StepState, View
from stepgrant_broker.domain.writes import Loaded, Quarantine, Query, Tenant

DEAD = NOW - 3_600_000


async def test_unknown_tenant_is_at_its_beginning(store: AnyStore, clock: SetClock) -> None:
    clock.time = NOW + 5
    assert await store.load(Query("nobody")) == Loaded(NOW + 5, Tenant("nobody", 0, GENESIS, 0))
    assert await store.now() == NOW + 5


async def test_a_run_by_each_of_its_names(store: AnyStore) -> None:
    chain = Chain.of_run()
    run = chain.the_run
    step = a_step(run)
    grant, approval = a_grant(run, step.key), an_approval(run, step.key)
    await store.commit(chain.adds(1, rows=(step, grant, approval), lease_until=NOW + 30_000))
    for query in (
        Query("acme", run=run.id),
        Query("acme", run_key=(run.agent, run.key)),
        Query("acme", grant=grant.jti),
        Query("acme", approval=approval.id),
        Query("acme", run=run.id, grant=grant.jti, approval=approval.id, run_key=(run.agent, run.key)),
    ):
        loaded = await store.load(query)
        assert (loaded.view.run, loaded.lease_until) == (chain.row, NOW + 30_000)
        assert loaded.head() == Head("acme", run.id, 1, chain.row.head, chain.row.last_ts)


async def test_names_that_do_not_agree_find_nothing(store: AnyStore) -> None:
    chain, other = Chain.of_run(), Chain.of_run()
    grant, approval = a_grant(other.the_run, "s"), an_approval(other.the_run, "s")
    await store.commit(chain.adds(1))
    await store.commit(other.adds(1, rows=(grant, approval)))
    key = (other.the_run.agent, other.the_run.key)
    for query in (
        Query("acme", run=chain.run, grant=grant.jti),
        Query("acme", run=chain.run, approval=approval.id),
        Query("acme", run=chain.run, run_key=key),
        Query("acme", run=chain.run, grant="unknown"),
        Query("acme", run=chain.run, approval="unknown"),
        Query("acme", run_key=("agent", "unknown"), run=chain.run),
        Query("acme", run="unknown"),
        Query("acme", grant="unknown"),
    ):
        loaded = await store.load(query)
        assert (loaded.view, loaded.lease_until) == (View(), 0)


async def test_another_tenant_sees_nothing(store: AnyStore) -> None:
    chain, own = Chain.of_run(), Chain.of_tenant()
    run = chain.the_run
    step, payload = a_step(run), a_payload()
    grant, approval, answer = a_grant(run, step.key), an_approval(run, step.key), an_answer(chain, answer_c=payload.c)
    await store.commit(chain.adds(1, rows=(step, grant, approval), payloads=(payload,), answer=answer))
    await store.commit(own.adds(1, rows=(Quarantine("acme", "agent", "a", NOW),), raise_guard=True))
    for query in (
        Query("globex", run=run.id, step=step.key, unfinished=True, answer=answer.scope),
        Query("globex", run_key=(run.agent, run.key), answer=answer.scope),
        Query("globex", grant=grant.jti),
        Query("globex", approval=approval.id),
    ):
        assert await store.load(query) == Loaded(NOW, Tenant("globex", 0, GENESIS, 0))


async def test_a_step_with_its_grants_and_approvals_and_no_others(store: AnyStore) -> None:
    chain = Chain.of_run()
    run = chain.the_run
    mine, also, other = a_step(run), a_step(run), a_step(run)
    grants = [a_grant(run, s.key, attempt=n) for s in (mine, mine, also, other) for n in (1,)]
    approvals = [an_approval(run, s.key, status=status) for s in (mine, also, other) for status in ApprovalStatus]
    await store.commit(chain.adds(1, rows=(mine, also, other, *grants, *approvals)))
    view = (await store.load(Query("acme", run=run.id, step=mine.key))).view
    assert view.steps == {mine.key: mine}
    assert view.grants == {g.jti: g for g in grants if g.step == mine.key}
    assert view.approvals == {a.id: a for a in approvals if a.step == mine.key}
    assert view.epochs == {}
    view = (await store.load(Query("acme", run=run.id, step=mine.key, also=(also.key, "unknown")))).view
    assert set(view.steps) == {mine.key, also.key}
    assert set(view.grants) == {g.jti for g in grants[:3]}
    assert len(view.approvals) == 2 * len(ApprovalStatus)


async def test_a_step_name_without_a_step_still_brings_its_approvals(store: AnyStore) -> None:
    chain = Chain.of_run()
    approval = an_approval(chain.the_run, "~resume", status=ApprovalStatus.CONSUMED)
    await store.commit(chain.adds(1, rows=(approval,)))
    view = (await store.load(Query("acme", run=chain.run, step="~resume"))).view
    assert (view.steps, view.approvals) == ({}, {approval.id: approval})


async def test_a_grant_or_approval_brings_its_step(store: AnyStore) -> None:
    chain = Chain.of_run()
    run = chain.the_run
    step, other = a_step(run), a_step(run)
    grants, approval = [a_grant(run, step.key) for _ in range(2)], an_approval(run, step.key)
    await store.commit(chain.adds(1, rows=(step, other, *grants, approval, a_grant(run, other.key))))
    for query in (Query("acme", grant=grants[0].jti), Query("acme", approval=approval.id)):
        view = (await store.load(query)).view
        assert view.steps == {step.key: step}
        assert view.grants == {g.jti: g for g in grants}
        assert view.approvals == {approval.id: approval}


async def test_unfinished(store: AnyStore) -> None:
    chain = Chain.of_run()
    run = chain.the_run
    steps = {state: a_step(run, state=state, grant=unique("jti")) for state in StepState}
    newest = [a_grant(run, s.key, jti=s.grant, status=GrantStatus.REVOKED) for s in steps.values()]
    done = steps[StepState.COMPLETED]
    opened = [
        a_grant(run, done.key, status=GrantStatus.ISSUED, exp=DEAD),
        a_grant(run, done.key, status=GrantStatus.INTENT),
        a_grant(run, done.key, status=GrantStatus.REVOKED, revocation=Revocation.CONFIRMED),
    ]
    closed = [
        a_grant(run, done.key, status=GrantStatus.REVOKED),
        a_grant(run, done.key, status=GrantStatus.FAILED),
        a_grant(run, done.key, status=GrantStatus.REVOKED, revocation=Revocation.CONFIRMED, confirmed_at=NOW),
    ]
    approvals = {status: an_approval(run, done.key, status=status) for status in ApprovalStatus}
    epochs = [an_epoch(run, number) for number in (1, 2, 3)]
    rows = (*steps.values(), *newest, *opened, *closed, *approvals.values(), *epochs)
    await store.commit(chain.adds(1, rows=rows))
    view = (await store.load(Query("acme", run=run.id, unfinished=True))).view
    open_states = set(StepState) - {StepState.COMPLETED, StepState.RECORDED}
    assert view.steps == {steps[state].key: steps[state] for state in open_states}
    expected = [*opened, *(grant for grant in newest if grant.step in view.steps)]
    assert view.grants == {grant.jti: grant for grant in expected}
    asked = {ApprovalStatus.PENDING, ApprovalStatus.APPROVED, ApprovalStatus.DENIED}
    assert view.approvals == {approvals[status].id: approvals[status] for status in asked}
    assert view.epochs == {epoch.epoch: epoch for epoch in epochs}


async def test_all_epochs_come_with_the_runs_key(store: AnyStore) -> None:
    """Else a resume could not see that its key has held the run before."""
    chain = Chain.of_run()
    epochs = {number: an_epoch(chain.the_run, number) for number in range(1, 30)}
    await store.commit(chain.adds(1, rows=tuple(epochs.values())))
    key = (chain.the_run.agent, chain.the_run.key)
    assert (await store.load(Query("acme", run_key=key))).view.epochs == epochs


async def test_older_effectful_grants_that_may_live(store: AnyStore) -> None:
    chain = Chain.of_run(epoch=3)
    run = chain.the_run
    live = [
        a_grant(run, "old", epoch=2),
        a_grant(run, "old", epoch=1, effect=Effect.IDEMPOTENT),
        a_grant(run, "old", epoch=2, exp=NOW - 4_000),
        a_grant(run, "old", epoch=1, revocation=Revocation.CONFIRMED, redeem=RedeemMode.OPTIONAL, exp=DEAD),
    ]
    dead = [
        a_grant(run, "old", epoch=3),
        a_grant(run, "old", epoch=2, effect=Effect.READ),
        a_grant(run, "old", epoch=2, exp=DEAD),
        a_grant(run, "old", epoch=2, status=GrantStatus.REVOKED, revoked_at=NOW - 1),
        a_grant(run, "old", epoch=2, status=GrantStatus.FAILED),
    ]
    other = Chain.of_run(epoch=3)
    await store.commit(chain.adds(1, rows=(*live, *dead)))
    await store.commit(other.adds(1, rows=(a_grant(other.the_run, "old"),)))
    for query in (Query("acme", run=run.id, step="new"), Query("acme", run=run.id, unfinished=True)):
        found = (await store.load(query)).view.grants
        assert {grant.jti for grant in live} <= set(found)
        assert not {grant.jti for grant in dead if not is_open(grant)} & set(found)
    assert not (await store.load(Query("acme", run=run.id))).view.grants


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), leeway=st.integers(0, 120_000), later=st.integers(-1000, 400_000))
@pytest.mark.timeout(300)
async def test_the_rule_of_prior_credentials_sees_no_less_than_all_grants(
    store: AnyStore, clock: SetClock, data: st.DataObject, leeway: int, later: int
) -> None:
    """`live_effectful` over what `load` brings is what it would be over every grant of the run."""
    chain = Chain.of_run(unique("t"), epoch=3)
    times = st.none() | st.integers(NOW, NOW + 200_000)
    grants = []
    for _ in range(data.draw(st.integers(1, 6))):
        moments = {name: data.draw(times) for name in ("act_before", "revoked_at", "confirmed_at")}
        fixed = {"run": chain.run, "tenant": chain.tenant, "step": "old", "jti": unique("jti"), **moments}
        numbers = {"epoch": data.draw(st.integers(1, 3)), "exp": data.draw(st.integers(NOW, NOW + 200_000))}
        grants.append(data.draw(strategies.of(Grant, **fixed, **numbers, issued_at=NOW)))
    await store.commit(chain.adds(1, rows=tuple(grants)))
    clock.time = NOW + later
    loaded = await store.load(Query(chain.tenant, run=chain.run, step="new"))
    found = live_effectful(loaded.view.grants.values(), 3, loaded.now, leeway)
    expected = live_effectful(grants, 3, loaded.now, leeway)
    assert (found and found[1]) == (expected and expected[1])
    assert (found is None) == (expected is None)


async def test_a_fast_runs_past_does_not_come_along_whole(store: AnyStore) -> None:
    chain = Chain.of_run(epoch=2)
    run = chain.the_run
    grants = [a_grant(run, f"s{number}", exp=NOW + number) for number in range(500)]
    static = a_grant(run, "s", revocation=Revocation.CONFIRMED, redeem=RedeemMode.OPTIONAL, exp=DEAD)
    await store.commit(chain.adds(1, rows=(*grants, static)))
    found = (await store.load(Query("acme", run=run.id, step="new"))).view.grants
    assert len(found) <= 100
    assert {static.jti, grants[-1].jti} <= set(found)
    longest = live_effectful(found.values(), 2, NOW, Limits().leeway_ms)
    assert longest is not None
    assert longest[0] == static


async def test_payloads_that_come_along(store: AnyStore) -> None:
    chain = Chain.of_run(input_c="input", principal_c="principal")
    run = chain.the_run
    step = a_step(run, result_c="result", error_c="error", digest_c="digest", resource_c="resource")
    other = a_step(run, result_c="other")
    approval = an_approval(run, step.key, binding_c="binding")
    names = ("input", "principal", "result", "error", "digest", "resource", "binding", "other", "unrelated")
    payloads = {name: a_payload(f'"{name}"'.encode(), c=name) for name in names}
    await store.commit(chain.adds(1, rows=(step, other, approval), payloads=tuple(payloads.values())))

    async def brought(query: Query) -> set[str]:
        loaded = await store.load(query)
        assert all(loaded.payloads[name] == payloads[name] for name in loaded.payloads)
        return set(loaded.payloads)

    assert await brought(Query("acme", run=run.id)) == {"principal"}
    assert await brought(Query("acme", run=run.id, unfinished=True)) == {"principal"}
    assert await brought(Query("acme", run_key=(run.agent, run.key))) == {"principal", "input"}
    assert await brought(Query("acme", run=run.id, step=step.key)) == {"principal", "result", "error"}
    assert await brought(Query("acme", approval=approval.id)) == {"principal", "digest", "resource", "binding"}


async def test_payloads_of_chains_are_apart(store: AnyStore) -> None:
    chain, other = Chain.of_run(principal_c="p"), Chain.of_run(principal_c="p")
    await store.commit(chain.adds(1, payloads=(a_payload(b'"mine"', c="p"),)))
    await store.commit(other.adds(1, payloads=(a_payload(b'"theirs"', c="p"),)))
    assert (await store.load(Query("acme", run=chain.run))).payloads["p"].body == b'"mine"'
    assert await store.payloads("acme", str(other.run), ["p", "q", "p"]) == {"p": a_payload(b'"theirs"', c="p")}
    assert await store.payloads("acme", "", ["p"]) == {}
    assert await store.payloads("globex", str(chain.run), ["p"]) == {}


async def test_a_stored_answer_comes_without_its_run(store: AnyStore) -> None:
    """An open that is repeated names no run yet."""
    chain, payload = Chain.of_run(), a_payload()
    answer = an_answer(chain, answer_c=payload.c)
    await store.commit(chain.adds(1, payloads=(payload,), answer=answer))
    loaded = await store.load(Query("acme", answer=answer.scope))
    assert (loaded.answer, loaded.payloads) == (answer, {payload.c: payload})
    loaded = await store.load(Query("acme", answer="another"))
    assert (loaded.answer, loaded.payloads) == (None, {})


async def test_only_kill_switches_that_hold_now(store: AnyStore, clock: SetClock) -> None:
    own = Chain.of_tenant()
    thrown, lifted = Quarantine("acme", "agent", "a", NOW), Quarantine("acme", "issuer", "i", NOW - 1, NOW)
    held = Quarantine("acme", "workload", "w", NOW, NOW + 1)
    await store.commit(own.adds(1, rows=(thrown, lifted, held)))
    assert set((await store.load(Query("acme"))).quarantines) == {thrown, held}
    clock.time = NOW + 1
    assert (await store.load(Query("acme"))).quarantines == (thrown,)
    await store.commit(own.adds(1, rows=(replace(thrown, released_at=NOW + 1),)))
    assert (await store.load(Query("acme"))).quarantines == ()
    assert await store.quarantines("acme") == ()
