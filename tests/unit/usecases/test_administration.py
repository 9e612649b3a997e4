"""Enrolment, people, secrets, policy, tenants."""

from dataclasses import replace

import pytest

from fakes.hand import Hand, allow
from fakes.world import AUDIENCE
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.errors import (
    Conflict,
    DuplicateRequest,
    Forbidden,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
    Unauthenticated,
)
from stepgrant_broker.domain.ports import Attested
from stepgrant_broker.domain.writes import Workload
from stepgrant_broker.usecases import enroll as enrolling
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.attest import record_attested
from stepgrant_broker.usecases.context import present
from stepgrant_broker.usecases.operators import authenticate_operator, create_operator, remove_operator
from stepgrant_broker.usecases.set_secret import remove_secret, set_secret

JWK = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "bad name"}, "name"),
        ({"agents": (), "audiences": ()}, "agents"),
        ({"agents": ("bad name",)}, "agents"),
        ({"audiences": ("x" * 501,)}, "audiences"),
        ({"jwk": {**JWK, "d": "secret"}}, "jwk"),
    ],
)
async def test_a_malformed_enrolment_is_refused(broker: Hand, change: dict[str, object], field: str) -> None:
    values = {"name": "w", "agents": ("a",), "audiences": (AUDIENCE,), "jwk": JWK, "jkt": "j", **change}
    before = await broker.entries(None)
    with pytest.raises(InvalidRequest) as bad:
        await enrolling.enroll(broker.ports, "acme", broker.operator, enrolling.Enrolment(**values))  # type: ignore[arg-type]
    assert bad.value.field == field
    assert "secret" not in str(bad.value)
    assert await broker.entries(None) == before


async def test_another_key_of_a_living_name_has_to_be_meant(broker: Hand) -> None:
    """Its name is its identity: the second key could resume the runs of the first."""
    new = enrolling.Enrolment("w", ("a",), (), JWK, "j")
    first = await enrolling.enroll(broker.ports, "acme", broker.operator, new)
    before, known = await broker.entries(None), await broker.ports.reads.workloads("acme")
    with pytest.raises(Conflict, match=f"w is enrolled already .{first['id']}.*say another_key") as refused:
        await enrolling.enroll(broker.ports, "acme", broker.operator, replace(new, jkt="j2"))
    assert (refused.value.code, refused.value.field) == ("conflict", "name")
    assert (await broker.entries(None), await broker.ports.reads.workloads("acme")) == (before, known)
    second = await enrolling.enroll(broker.ports, "acme", broker.operator, replace(new, jkt="j2", another_key=True))
    for one in (first, second):
        await enrolling.unenroll(broker.ports, "acme", broker.operator, str(one["id"]))
    assert (await enrolling.enroll(broker.ports, "acme", broker.operator, replace(new, jkt="j3")))["name"] == "w"


async def test_a_workload_that_a_trust_rule_calls_so_is_another_identity(broker: Hand) -> None:
    workload = Workload("wkl_rule", "acme", "billing", "oidc", ("billing",), (), {}, "", 0)
    seen = Attested(
        workload=workload, subject="ci@acme", method="oidc", trust_domain="https://issuer.example", attributes={},
        evidence="sha-256:e", not_after=None, dead_at=0, replay=None, jkt=None,
    )  # fmt: skip
    await record_attested(broker.ports, seen)
    new = enrolling.Enrolment("billing", ("billing",), (), JWK, "j")
    assert (await enrolling.enroll(broker.ports, "acme", broker.operator, new))["kind"] == "enrolled_key"


async def test_somebody_of_a_name_that_is_there_has_to_be_meant(broker: Hand) -> None:
    """Records show names, and each counts where policy asks several people."""
    first = await create_operator(broker.ports, "acme", broker.operator, name="Eve", roles=["approver"])
    before = await broker.entries(None)
    with pytest.raises(Conflict, match=f"Eve is there already .{first['id']}.*say another_token") as refused:
        await create_operator(broker.ports, "acme", broker.operator, name="Eve", roles=["approver"])
    assert (refused.value.code, refused.value.field) == ("conflict", "name")
    assert await broker.entries(None) == before
    await create_operator(broker.ports, "acme", broker.operator, name="Eve", roles=["approver"], another_token=True)
    for one, name in await broker.ports.reads.operators("acme"):
        if name == "Eve":
            await remove_operator(broker.ports, "acme", broker.operator, one.id)
    assert (await create_operator(broker.ports, "acme", None, name="Eve", roles=["operator"]))["name"] == "Eve"


async def test_only_operators_administer_and_only_their_tenant(broker: Hand) -> None:
    new = enrolling.Enrolment("w", ("a",), (), JWK, "j")
    with pytest.raises(Forbidden):
        await enrolling.enroll(broker.ports, "acme", broker.approver(), new)
    with pytest.raises(Forbidden):
        await create_operator(broker.ports, "acme", broker.approver(), name="x", roles=["operator"])
    with pytest.raises(NotFound):
        await enrolling.unenroll(broker.ports, "other", None, broker.workload.id)
    with pytest.raises(NotFound):
        await enrolling.unenroll(broker.ports, "acme", None, "wkl_nope")
    with pytest.raises(InvalidRequest) as bad:
        await enrolling.enroll(broker.ports, "Bad Tenant", None, new)
    assert bad.value.field == "tenant"


async def test_what_a_trust_rule_admits_is_not_removed_by_hand(broker: Hand) -> None:
    """It would be back at its next token: the rule has to go, or the kill switch be thrown."""
    workload = Workload("wkl_rule", "acme", "billing", "oidc", ("billing",), (), {}, "", 0)
    seen = Attested(
        workload=workload, subject="ci@acme", method="oidc", trust_domain="https://issuer.example", attributes={},
        evidence="sha-256:e", not_after=None, dead_at=0, replay=None, jkt=None,
    )  # fmt: skip
    known = await record_attested(broker.ports, seen)
    before, guard = await broker.entries(None), (await broker.store.tenants())[0].guard
    with pytest.raises(InvalidRequest, match="take the rule out, or quarantine") as refused:
        await enrolling.unenroll(broker.ports, "acme", broker.operator, known.id)
    assert refused.value.field == "workload"
    assert await broker.ports.reads.workload(known.id) == known
    assert (await broker.entries(None), (await broker.store.tenants())[0].guard) == (before, guard)


async def test_creating_a_person_twice_under_one_key_makes_one_person(broker: Hand) -> None:
    request = broker.request({"name": "Eve"}, "same")
    await create_operator(broker.ports, "acme", broker.operator, name="Eve", roles=["approver"], request=request)
    with pytest.raises(DuplicateRequest, match="shown once"):
        await create_operator(broker.ports, "acme", broker.operator, name="Eve", roles=["approver"], request=request)
    assert [name for _, name in await broker.ports.reads.operators("acme")].count("Eve") == 1


async def test_an_operator_token_is_shown_once_and_kept_only_as_its_hash(broker: Hand) -> None:
    made = await create_operator(
        broker.ports, "acme", broker.operator, name="Bo", roles=["approver"], groups=["finance"],
        request=broker.request(),
    )  # fmt: skip
    who = await authenticate_operator(broker.ports, made["token"])
    assert (who.name, who.roles, who.groups) == ("Bo", frozenset({"approver"}), frozenset({"finance"}))
    entries = await broker.ports.reads.entries("acme", None, limit=500)
    assert all(made["token"].encode() not in entry.data and b'"Bo"' not in entry.data for entry in entries)
    await remove_operator(broker.ports, "acme", broker.operator, made["id"])
    with pytest.raises(Unauthenticated):
        await authenticate_operator(broker.ports, made["token"])
    with pytest.raises(NotFound):
        await remove_operator(broker.ports, "acme", broker.operator, made["id"])
    with pytest.raises(Unauthenticated):
        await authenticate_operator(broker.ports, "not-ours")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"roles": ["king"]}, "roles"),
        ({"roles": []}, "roles"),
        ({"name": "a\n"}, "name"),
        ({"groups": ["a b"]}, "groups"),
    ],
)
async def test_a_malformed_operator_is_refused(broker: Hand, change: dict[str, object], field: str) -> None:
    values: dict[str, object] = {"name": "x", "roles": ["approver"], **change}
    with pytest.raises(InvalidRequest) as bad:
        await create_operator(broker.ports, "acme", None, **values)  # type: ignore[arg-type]
    assert bad.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"hosts": ()}, "hosts"),
        ({"hosts": ("https://x",)}, "hosts"),
        ({"header": "a b"}, "header"),
        ({"value": ""}, "value"),
        ({"value": "hunter2\n"}, "value"),
    ],
)
async def test_a_malformed_secret_is_refused_without_repeating_it(
    broker: Hand, change: dict[str, object], field: str
) -> None:
    values: dict[str, object] = {"name": "key", "value": "hunter2", "hosts": ("api.example",), **change}
    with pytest.raises(InvalidRequest) as bad:
        await set_secret(broker.ports, "acme", broker.operator, **values)  # type: ignore[arg-type]
    assert (bad.value.field, "hunter2" in str(bad.value)) == (field, False)


async def test_a_secret_is_replaced_and_removed(broker: Hand) -> None:
    for value in ("one", "two"):
        await set_secret(broker.ports, "acme", broker.operator, name="key", value=value, hosts=("api.example",))
    run = (await broker.open())["run"]
    static = allow(issuer="static", params={"secret": "key"})
    assert (await broker.begin(run, decision=static))["credential"]["fields"]["value"] == "two"
    await remove_secret(broker.ports, "acme", broker.operator, "key")
    with pytest.raises(NotFound):
        await remove_secret(broker.ports, "acme", broker.operator, "key")


async def test_activating_the_active_policy_again_changes_nothing(broker: Hand) -> None:
    (tenant,) = await broker.ports.reads.tenants()
    revision = str(tenant.policy_revision)
    digest = revision.partition(":")[2]
    assert await next_revision(broker.ports, digest) == revision
    assert await next_revision(broker.ports, "sha-256:other") == "2:sha-256:other"
    before = await broker.entries(None)
    answer = await activate_policy(broker.ports, "acme", broker.operator, revision=revision, text={})
    assert answer == {"revision": revision, "changed": False}
    assert await broker.entries(None) == before
    answer = await activate_policy(broker.ports, "acme", None, revision="2:sha-256:other", text={"a.rego": "x"})
    assert answer["changed"] is True
    text = await broker.ports.reads.policy("acme", "2:sha-256:other")
    assert text is not None
    assert text.text == b'{"a.rego":"x"}'


async def test_an_administrative_call_is_repeated_by_its_key(broker: Hand) -> None:
    request = broker.request({"name": "w"}, "same")
    new = enrolling.Enrolment("w", ("a",), (), JWK, "j")
    first = await enrolling.enroll(broker.ports, "acme", broker.operator, new, request)
    assert await enrolling.enroll(broker.ports, "acme", broker.operator, new, request) == first
    assert len(await broker.ports.reads.workloads("acme")) == 3


def test_keys_are_remembered_in_memory_only_and_forgotten_on_demand(broker: Hand) -> None:
    keys = Keys()
    key = broker.ports.new_chain_key("acme", "run_1")
    assert keys.unwrap(key, broker.ports.wrap) == keys.unwrap(key, broker.ports.wrap)
    keys.forget("acme", "run_1")
    assert keys.unwrap(key, broker.ports.wrap)
    with pytest.raises(StoreUnavailable):
        present(None)


async def test_a_new_tenant_begins_with_its_first_entry(broker: Hand) -> None:
    await enrolling.enroll(broker.ports, "fresh", None, enrolling.Enrolment("w", ("a",), (), JWK, "j"))
    entries = await broker.ports.reads.entries("fresh", None)
    assert [entry.seq for entry in entries] == [0]
    assert await broker.ports.reads.chain_key("fresh", "") is not None
