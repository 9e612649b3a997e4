"""What was written is read back: every row type, with values that Hypothesis makes from its fields' types."""

# ruff: noqa: ANN401 - values of any field's type

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from changing import replace
from conformance.store import strategies
from conformance.store.adapters import AnyStore
from conformance.store.making import NOW, Chain, a_grant, a_payload, an_answer, unique
from stepgrant import canonical
from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.ports import SecretRecord
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import Approval, Epoch, Grant, Run, Step
from stepgrant_broker.domain.writes import ChainKey, Operator, PolicyText, Quarantine, Query, StoredAnswer, Workload

pytestmark = pytest.mark.timeout(300)
several = settings(
    max_examples=max(50, settings().max_examples // 2), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SECOND = st.booleans()
"""Whether the row is written once more over another row of the same identity: it is written whole."""


def exactly(value: Any) -> Any:
    """The value with its types: 1, 1.0 and True are equal, and so are an enum and its text."""
    if isinstance(value, Mapping):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [exactly(item) for item in value]
    if names := getattr(type(value), "__match_args__", ()):
        return {name: exactly(getattr(value, name)) for name in names}
    return type(value).__name__, value


def same(values: Any, expected: Any) -> None:
    """One of the values, and only one, is the expected one."""
    assert [exactly(value) for value in values if value == expected] == [exactly(expected)]


@several
@given(run=strategies.of(Run), lease=strategies.INT64)
async def test_run(store: AnyStore, run: Run, lease: int) -> None:
    chain = Chain.of_run(unique("t"))
    first = chain.the_run
    await store.commit(chain.adds(1, lease_until=NOW))
    fixed: dict[str, Any] = {
        "id": first.id,
        "tenant": first.tenant,
        "key": first.key,
        "agent": first.agent,
        "opened_at": NOW,
    }
    chain.row = replace(run, **fixed, seq=1, head=chain.row.head, last_ts=chain.row.last_ts)
    await store.commit(chain.adds(1, lease_until=lease))
    loaded = await store.load(Query(chain.tenant, run=first.id))
    same([loaded.view.run], chain.row)
    assert loaded.lease_until == lease
    assert (await store.runs(chain.tenant, Page())).rows == ((chain.row, lease),)


@several
@given(data=st.data(), second=SECOND)
@pytest.mark.parametrize("kind", [Step, Grant, Approval, Epoch])
async def test_row_of_a_run(store: AnyStore, kind: type[Any], data: st.DataObject, second: bool) -> None:  # noqa: FBT001
    chain = Chain.of_run(unique("t"))
    mine: dict[str, Any] = {"run": chain.run, "tenant": chain.tenant}
    row = data.draw(strategies.of(kind, **mine))
    sets = [chain.adds(1, rows=(row,))]
    if second:
        names: dict[type[Any], list[str]] = {
            Step: ["key", "position"],
            Grant: ["jti", "step", "issued_at"],
            Epoch: ["epoch"],
        }
        fixed = {name: getattr(row, name) for name in names.get(kind, ["id", "step", "requested_at"])}
        row = data.draw(strategies.of(kind, **mine, **fixed))
        sets.append(chain.adds(1, rows=(row,)))
    for writes in sets:
        await store.commit(writes)
    step = row.key if isinstance(row, Step) else row.step if isinstance(row, Approval) else None
    jti = row.jti if isinstance(row, Grant) else None
    loaded = await store.load(Query(chain.tenant, run=chain.run, unfinished=True, step=step, grant=jti))
    view = loaded.view
    same([*view.steps.values(), *view.grants.values(), *view.approvals.values(), *view.epochs.values()], row)


@several
@given(data=st.data(), second=SECOND)
@pytest.mark.parametrize("kind", [Workload, Operator, Quarantine, PolicyText, SecretRecord])
async def test_row_of_a_tenant(store: AnyStore, kind: type[Any], data: st.DataObject, second: bool) -> None:  # noqa: FBT001
    chain = Chain.of_tenant(unique("t"))
    name = a_payload(canonical.dumps("Ann"), field="operator.name")
    keys: dict[type, dict[str, Any]] = {
        Workload: {"id": unique("wkl")},
        Operator: {"id": unique("opr"), "token_hash": unique("hash"), "name_c": name.c},
        Quarantine: {"released_at": None},
        PolicyText: {"revision": unique("1:")},
        SecretRecord: {"removed_at": None, "name": unique("secret")},
    }
    row = data.draw(strategies.of(kind, tenant=chain.tenant, **keys[kind]))
    sets = [chain.adds(1, rows=(row,), payloads=(name,))]
    if second:
        identity = {"kind": row.kind, "name": row.name} if isinstance(row, Quarantine) else {}
        row = data.draw(strategies.of(kind, tenant=chain.tenant, **{**keys[kind], **identity}))
        sets.append(chain.adds(1, rows=(row,)))
    for writes in sets:
        await store.commit(writes)
    match row:
        case Workload():
            same([await store.workload(row.id)], row)
            same(await store.workloads(chain.tenant), row)
        case Operator():
            assert (row, "Ann") in await store.operators(chain.tenant)
        case Quarantine():
            same(await store.quarantines(chain.tenant), row)
            same((await store.load(Query(chain.tenant))).quarantines, row)
        case PolicyText():
            same([await store.policy(chain.tenant, row.revision)], row)
            same(await store.policies(chain.tenant), replace(row, text=b""))
        case _:
            same([await store.secret(chain.tenant, row.name)], row)
            same(await store.secrets(chain.tenant), row)


@several
@given(data=st.data())
async def test_tenant(store: AnyStore, data: st.DataObject) -> None:
    chain = Chain.of_tenant(unique("t"))
    await store.commit(chain.adds(1))
    values = {"policy_revision": data.draw(st.none() | strategies.TEXT), "policy_counter": data.draw(strategies.INT64)}
    await store.commit(chain.adds(1, change=values))
    same([(await store.load(Query(chain.tenant))).tenant], chain.row)
    same(await store.tenants(), chain.row)


@several
@given(data=st.data())
async def test_chain_key(store: AnyStore, data: st.DataObject) -> None:
    chain, own = Chain.of_run(unique("t")), Chain.of_tenant(unique("t"))
    of_run = data.draw(strategies.of(ChainKey, tenant=chain.tenant, run=chain.run))
    of_tenant = data.draw(strategies.of(ChainKey, tenant=own.tenant, run=""))
    await store.commit(chain.adds(1, rows=(of_run,)))
    await store.commit(own.adds(1, rows=(of_tenant,)))
    loaded = await store.load(Query(chain.tenant, run=chain.run))
    same([loaded.key], of_run)
    assert loaded.tenant_key is None
    loaded = await store.load(Query(own.tenant))
    same([loaded.key], of_tenant)
    same([loaded.tenant_key], of_tenant)
    assert await store.chain_key(chain.tenant, str(chain.run)) == of_run


@several
@given(data=st.data())
async def test_stored_answer_and_payload(store: AnyStore, data: st.DataObject) -> None:
    chain = Chain.of_run(unique("t"))
    payload = data.draw(strategies.of(Payload))
    answer = data.draw(strategies.of(StoredAnswer, tenant=chain.tenant, run=chain.run, answer_c=payload.c))
    answer = replace(answer, expires_at=NOW + abs(answer.expires_at % 2**40) + 1)
    await store.commit(chain.adds(1, payloads=(payload,), answer=answer))
    loaded = await store.load(Query(chain.tenant, answer=answer.scope))
    same([loaded.answer], answer)
    same(loaded.payloads.values(), payload)
    assert await store.payloads(chain.tenant, str(chain.run), [payload.c]) == {payload.c: payload}


async def test_entries_rest_as_their_exact_bytes(store: AnyStore) -> None:
    chain, own = Chain.of_run(), Chain.of_tenant()
    sets = [chain.adds(3), chain.adds(2), own.adds(2)]
    for writes in sets:
        await store.commit(writes)
    found = await store.entries("acme", chain.run)
    assert [(e.seq, e.data, e.leaf_index) for e in found] == [
        (e.seq, e.data, None) for writes in sets[:2] for e in writes.entries
    ]
    assert [e.data for e in await store.entries("acme", None)] == [e.data for e in sets[2].entries]
    assert [e.seq for e in await store.entries("acme", chain.run, after=1, limit=2)] == [2, 3]


async def test_a_grants_secretless_extremes_survive(store: AnyStore) -> None:
    """Deep parameters, big numbers, empty maps: what policy may say must not come back otherwise."""
    chain = Chain.of_run()
    params = {"a": [1, 1.5, True, None, {"b": ["ü\u2028\x00", "😀"]}], "n": 2**53 - 1, "": {}}
    grant = a_grant(chain.the_run, "s", params=params, meters={"usd": 2**60}, labels=())
    await store.commit(chain.adds(1, rows=(grant,), answer=an_answer(chain)))
    loaded = await store.load(Query("acme", grant=grant.jti))
    same(loaded.view.grants.values(), grant)
