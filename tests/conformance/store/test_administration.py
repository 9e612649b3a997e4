"""Enrolments, people, kill switches, policies and secrets: each tenant sees its own, and what is removed is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.store.adapters import AnyStore
from conformance.store.making import (
    NOW,
    Chain,
    a_payload,
)
from stepgrant import canonical
from stepgrant_broker.domain.ports import SecretRecord, Wrapped
from stepgrant_broker.domain.writes import ChainKey, Operator, PolicyText, Quarantine, Workload

WRAPPED = Wrapped("k", b"n", b"c")


async def test_administration_is_by_tenant(store: AnyStore) -> None:
    name = a_payload(canonical.dumps("Ann"), field="operator.name")
    rows: dict[str, tuple[Any, ...]] = {}
    for tenant in ("acme", "globex"):
        own = Chain.of_tenant(tenant)
        rows[tenant] = (
            Workload(f"wkl_{tenant}", tenant, "w", "k", ("a",), (), {"kty": "EC"}, "jkt", NOW),
            Operator(f"opr_{tenant}", tenant, name.c, ("operator",), (), f"hash_{tenant}", NOW),
            Quarantine(tenant, "agent", "a", NOW),
            PolicyText(tenant, "1:x", 1, "x", NOW, b"{}"),
            SecretRecord(tenant, "s", ("h",), "H", WRAPPED, NOW),
            ChainKey(tenant, "", WRAPPED),
        )
        await store.commit(own.adds(1, rows=rows[tenant], payloads=(name,)))
    workload, operator, quarantine, policy, secret, key = rows["acme"]
    assert await store.workload("wkl_acme") == workload
    assert await store.workload("unknown") is None
    assert await store.workloads("acme") == (workload,)
    assert await store.operator_by_token("hash_acme") == (operator, "Ann")
    assert await store.operators("acme") == ((operator, "Ann"),)
    assert await store.quarantines("acme") == (quarantine,)
    assert await store.policy("acme", "1:x") == policy
    assert await store.policy("acme", "2:x") is None
    assert await store.policies("acme") == (replace(policy, text=b""),)
    assert await store.secret("acme", "s") == secret
    assert await store.secrets("acme") == (secret,)
    assert await store.chain_key("acme", "") == key
    assert [tenant.id for tenant in await store.tenants()] == ["acme", "globex"]
    for read in (store.workloads, store.operators, store.quarantines, store.policies, store.secrets):
        assert await read("initech") == ()
    assert await store.secret("initech", "s") is None
    assert await store.chain_key("initech", "") is None
    assert await store.policy("initech", "1:x") is None


async def test_what_is_removed(store: AnyStore) -> None:
    """A removed person's token and a removed secret are gone; the lists of people and enrolments still show them."""
    own = Chain.of_tenant()
    name = a_payload(canonical.dumps("Ann"), field="operator.name")
    workload = Workload("wkl_1", "acme", "w", "k", (), (), {}, "jkt", NOW, removed_at=NOW)
    operator = Operator("opr_1", "acme", name.c, (), (), "hash", NOW, removed_at=NOW)
    secret = SecretRecord("acme", "s", ("h",), "H", WRAPPED, NOW, removed_at=NOW)
    await store.commit(own.adds(1, rows=(workload, operator, secret), payloads=(name,)))
    assert await store.operator_by_token("hash") is None
    assert await store.secret("acme", "s") is None
    assert await store.secrets("acme") == ()
    assert await store.operators("acme") == ((operator, "Ann"),)
    assert await store.workloads("acme") == (workload,)
    assert await store.workload("wkl_1") == workload


async def test_a_person_whose_name_was_erased_cannot_come_in(store: AnyStore) -> None:
    """Without a name nobody can tell whether the person is the run's principal, who must not approve."""
    operator = Operator("opr_1", "acme", "erased", (), (), "hash", NOW)
    await store.commit(Chain.of_tenant().adds(1, rows=(operator,)))
    assert await store.operator_by_token("hash") is None
    assert await store.operators("acme") == ((operator, ""),)


async def test_policies_newest_first(store: AnyStore) -> None:
    own = Chain.of_tenant()
    texts = [PolicyText("acme", f"{n}:x", n, "x", NOW, b"text") for n in (1, 10, 2)]
    await store.commit(own.adds(1, rows=tuple(texts)))
    assert [policy.counter for policy in await store.policies("acme")] == [10, 2, 1]
