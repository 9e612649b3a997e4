"""Fail, suspend, reconcile, redeem, revoke; enrolment, people, secrets, policy."""

import pytest

from fakes.hand import Hand, allow, ask
from fakes.world import AUDIENCE, call, person
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import (
    AlreadyRedeemed,
    DigestMismatch,
    DuplicateRequest,
    Forbidden,
    InvalidRequest,
    NotFound,
    PriorCredentialLive,
    StoreUnavailable,
    Unauthenticated,
    UnknownApproval,
    UnknownGrant,
)
from stepgrant_broker.domain.outcomes import Result, Verdict
from stepgrant_broker.domain.ports import Page
from stepgrant_broker.domain.state import FailStatus
from stepgrant_broker.usecases import enroll as enrolling
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.context import Keys, present
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.fail import fail
from stepgrant_broker.usecases.operators import authenticate_operator, create_operator, remove_operator
from stepgrant_broker.usecases.reconcile import reconcile, reconcile_by_person
from stepgrant_broker.usecases.revoke import revoke_grant
from stepgrant_broker.usecases.set_secret import remove_secret, set_secret
from stepgrant_broker.usecases.suspend import suspend

JWK = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}


async def doubt(broker: Hand, decision: dict[str, object] | None = None) -> str:
    """A run whose step s1 is in doubt, held under epoch 2 by k2."""
    run = str((await broker.open())["run"])
    granted = await broker.begin(run, decision=decision)
    await broker.redeem(granted["grant"]["jti"])
    broker.clock.tick(31_000)
    await broker.open(who="k2")
    return run


async def test_an_unknown_outcome_is_told_as_doubt(broker: Hand) -> None:
    run = (await broker.open())["run"]
    granted = await broker.begin(run)
    await broker.redeem(granted["grant"]["jti"])
    answer = await fail(
        broker.ports, broker.agent(), run, "s1", 1, 1, status=FailStatus.UNKNOWN, error="x", request=broker.request()
    )
    assert (answer["state"], answer["in_doubt"]["why"]) == ("in_doubt", "tool_raised")


async def test_suspend_revokes(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run)
    assert (await suspend(broker.ports, broker.agent(), run, "s1", 1, 1, broker.request()))["state"] == "prepared"
    assert (await broker.entries(run))[-2:] == ["step_suspended", "grant_revoked"]


async def test_a_hook_reconciles_with_a_look_of_its_own(broker: Hand) -> None:
    run = await doubt(broker)
    look = "s1~reconcile~1"
    await broker.begin(run, look, allow(effect="read"), who="k2", epoch=2, effect=Effect.READ, tool="pay.reconcile")
    await broker.complete(run, look, epoch=2, who="k2")
    said = Verdict(1, "done", Result(b'{"id":7}'), "found it", look)
    answer = await reconcile(broker.ports, broker.agent("k2"), run, "s1", 2, said, broker.request())
    assert answer["state"] == "completed"
    replayed = await broker.begin(run, who="k2", epoch=2)
    assert replayed["result"] == {"id": 7}


async def test_a_hook_of_an_issuer_without_revocation_is_not_believed(broker: Hand) -> None:
    await set_secret(broker.ports, "acme", broker.operator, name="key", value="s3cret", hosts=("api.example",))
    run = (await broker.open())["run"]
    await broker.begin(run, decision=allow(issuer="static", params={"secret": "key"}))
    broker.clock.tick(100_000)
    await broker.open(who="k2")
    look = "s1~reconcile~1"
    await broker.begin(run, look, allow(effect="read"), who="k2", epoch=2, effect=Effect.READ, tool="pay.reconcile")
    await broker.complete(run, look, epoch=2, who="k2")
    said = Verdict(1, "not_done", Result(None), None, look)
    with pytest.raises(PriorCredentialLive):
        await reconcile(broker.ports, broker.agent("k2"), run, "s1", 2, said, broker.request())


async def test_an_operator_reconciles_where_policy_named_no_group(broker: Hand) -> None:
    run = await doubt(broker)
    said = Verdict(1, "not_done", Result(None), "I looked")
    with pytest.raises(Forbidden):
        await reconcile_by_person(broker.ports, broker.approver(), run, "s1", said, broker.request())
    request = broker.request({}, "same")
    answer = await reconcile_by_person(broker.ports, broker.operator, run, "s1", said, request)
    assert answer["state"] == "failed"
    assert await reconcile_by_person(broker.ports, broker.operator, run, "s1", said, request) == answer
    with pytest.raises(InvalidRequest, match="hook"):
        await reconcile_by_person(
            broker.ports, broker.operator, run, "s1", Verdict(1, "done", Result(None), None, "x"), broker.request()
        )


async def test_people_of_the_approving_groups_reconcile_a_step_that_needed_them(broker: Hand) -> None:
    run = (await broker.open())["run"]
    asked = await broker.begin(run, decision=ask(groups=["finance"]))
    approval = (await broker.ports.reads.approvals("acme", page(), run=run)).rows[0]
    payloads = await broker.ports.reads.payloads("acme", run, [approval.binding_c])
    ann = person("ann", groups=("finance",))
    await decide_approval(
        broker.ports, ann, asked["approval_id"], verdict="approve",
        digest=payloads[approval.binding_c].body.decode().strip('"'), note=None, request=broker.request(),
    )  # fmt: skip
    granted = await broker.begin(run, decision=ask(groups=["finance"]))
    await broker.redeem(granted["grant"]["jti"])
    await broker.begin(run)
    said = Verdict(1, "unknown", Result(None))
    with pytest.raises(Forbidden, match="finance"):
        await reconcile_by_person(broker.ports, broker.operator, run, "s1", said, broker.request())
    answer = await reconcile_by_person(broker.ports, ann, run, "s1", said, broker.request())
    assert answer["state"] == "in_doubt"


def page() -> object:
    """The first page."""
    return Page()


async def test_redeem_spends_the_one_use_and_repeats_its_answer(broker: Hand) -> None:
    run = (await broker.open())["run"]
    jti = (await broker.begin(run))["grant"]["jti"]
    first = await broker.redeem(jti)
    assert first["act_before"] == broker.clock.now() + 10_000
    assert {**(await broker.redeem(jti)), "now": 0} == {**first, "now": 0}
    with pytest.raises(AlreadyRedeemed):
        await broker.redeem(jti, rid="r2")
    with pytest.raises(UnknownGrant):
        await broker.redeem("grn_nope")
    assert (await broker.entries(run)).count("grant_redeemed") == 1


async def test_an_operator_revokes_a_grant(broker: Hand) -> None:
    run = (await broker.open())["run"]
    jti = (await broker.begin(run))["grant"]["jti"]
    with pytest.raises(Forbidden):
        await revoke_grant(broker.ports, broker.approver(), jti, broker.request())
    with pytest.raises(UnknownGrant):
        await revoke_grant(broker.ports, broker.operator, "grn_nope", broker.request())
    request = broker.request({}, "same")
    answer = await revoke_grant(broker.ports, broker.operator, jti, request)
    assert (answer["status"], answer["cause"]) == ("revoked", "operator")
    assert await revoke_grant(broker.ports, broker.operator, jti, request) == answer
    assert (await revoke_grant(broker.ports, broker.operator, jti, broker.request()))["status"] == "revoked"


async def test_an_approval_that_does_not_exist_or_a_long_note(broker: Hand) -> None:
    more = {"verdict": "approve", "digest": "d", "request": broker.request()}
    with pytest.raises(UnknownApproval):
        await decide_approval(broker.ports, broker.approver(), "apr_nope", note=None, **more)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as bad:
        await decide_approval(broker.ports, broker.approver(), "apr_nope", note="x" * 2001, **more)  # type: ignore[arg-type]
    assert bad.value.field == "note"


async def test_an_answer_is_repeated_by_its_key(broker: Hand) -> None:
    run = (await broker.open())["run"]
    asked = (await broker.begin(run, decision=ask()))["approval_id"]
    approval = (await broker.ports.reads.approvals("acme", page(), run=run)).rows[0]  # type: ignore[arg-type]
    payloads = await broker.ports.reads.payloads("acme", run, [approval.binding_c])
    digest, request = payloads[approval.binding_c].body.decode().strip('"'), broker.request({}, "same")
    answers = [
        await decide_approval(
            broker.ports, broker.approver(), asked, verdict="approve", digest=digest, note=None, request=request
        )
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert (await broker.entries(run)).count("approval_decided") == 1


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


async def test_the_call_that_was_granted_is_the_one_that_is_redeemed(broker: Hand) -> None:
    run = (await broker.open())["run"]
    jti = (await broker.begin(run))["grant"]["jti"]
    with pytest.raises(DigestMismatch):
        await broker.redeem(jti, digest=call(args={"amount": 2}).digest)
    assert (await broker.entries(run)).count("grant_redeemed") == 0
