"""Putting a broker together: keys and database belong together, test seams stay in tests, nothing stays half open."""

from __future__ import annotations

import shutil
import stat
import threading
from pathlib import Path

import pytest

from fakes.clock import ArmedFailpoints, StandingClock
from stepgrant.errors import ConfigurationError
from stepgrant_broker.config import Settings, SettingsError, explicit_settings
from stepgrant_broker.domain.errors import InvalidRequest, SignerUnavailable, StoreUnavailable
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.store.faults import SchemaMissing
from stepgrant_broker.usecases.operators import authenticate_operator
from stepgrant_broker.wiring import Broker, build, bundle_of, check_database, opened
from stepgrant_broker.wiring.bootstrap import enrol_workload, ensure_tenant, ensure_workload, new_operator
from stepgrant_broker.wiring.failpoints import FailpointHit
from stepgrant_broker.wiring.seams import Seams


async def test_it_opens_with_the_starter_policy_recorded(broker: Broker) -> None:
    tenant = (await broker.ports.store.load(Query("default"))).tenant
    assert tenant.policy_revision == broker.policy.revision
    assert str(broker.policy.revision).startswith("1:sha-256:")
    assert [str(finding) async for finding in broker.ledger_check().findings()] == []


async def test_keys_and_database_are_private(broker: Broker) -> None:
    folder = broker.settings.data_dir
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o700


async def test_nothing_is_made_unless_it_is_said(settings: Settings) -> None:
    with pytest.raises(SchemaMissing):
        async with build(explicit_settings(data_dir=settings.data_dir)):
            pytest.fail("opened a broker out of nothing")
    assert not settings.data_dir.exists()


async def test_a_database_without_its_keys_gets_no_new_ones(settings: Settings) -> None:
    """With new keys the old ledger could neither be read nor continued."""
    plain = explicit_settings(data_dir=settings.data_dir)
    async with build(plain, create=True):
        pass
    shutil.rmtree(plain.keys_folder)
    for create in (True, False):
        with pytest.raises(SignerUnavailable):
            async with build(plain, create=create):
                pytest.fail("opened an old database with new keys")
    assert not plain.keys_folder.exists()


async def test_it_opens_again_as_it_was(settings: Settings) -> None:
    plain = explicit_settings(data_dir=settings.data_dir)
    async with build(plain, create=True) as first:
        revision = first.policy.revision
        keys = await first.ports.signer.public_keys("heads")
    async with build(plain) as second:
        assert second.policy.revision == revision
        assert await second.ports.signer.public_keys("heads") == keys
        assert len(await second.ports.reads.entries("default", None)) == 1


async def test_production_refuses_the_seams_of_tests(settings: Settings, clock: StandingClock) -> None:
    plain = explicit_settings(data_dir=settings.data_dir)
    for seams in (Seams(clock=clock), Seams(failpoints=ArmedFailpoints()), Seams()):
        with pytest.raises(SettingsError, match="TEST_MODE"):
            async with build(plain, create=True, seams=seams):
                pytest.fail("a test's clock in production")
    assert not settings.data_dir.exists()


async def test_failpoints_of_the_settings_are_armed(settings: Settings) -> None:
    async with build(settings.model_copy(update={"failpoints": "ledger.head=raise"}), create=True) as broker:
        assert broker.ports.failpoints is not None
        with pytest.raises(FailpointHit, match="head"):
            broker.ports.failpoints.hit("ledger.head")
    async with build(settings) as broker:
        assert broker.ports.failpoints is None


async def test_a_broken_policy_opens_nothing_and_leaves_no_thread(settings: Settings) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(PolicyInvalid):
        async with build(settings, create=True, policy=bundle_of({"stepgrant/main.rego": "package stepgrant\n"})):
            pytest.fail("opened with a policy that decides nothing")
    after = {thread.name for thread in threading.enumerate() if thread.name.startswith("stepgrant")}
    assert after <= before


async def test_bootstrap_enrols_and_creates_people(broker: Broker, tmp_path: Path) -> None:
    key = await enrol_workload(broker, tmp_path / "agent.json", "agent-1", agents=["my-agent"])
    known = await broker.ports.reads.workload(key.workload_id)
    assert known is not None
    assert (known.tenant, known.agents, known.jkt) == ("default", ("my-agent",), key.jkt)
    operator, token = await new_operator(broker, "Ann", roles=["approver"], groups=["finance"])
    person = await authenticate_operator(broker.ports, token)
    assert (person.id, person.name, person.groups) == (operator, "Ann", frozenset({"finance"}))
    with pytest.raises(InvalidRequest):
        await new_operator(broker, "Bob", roles=["king"])


async def test_a_key_file_is_never_replaced_and_nothing_is_enrolled_for_it(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="never replaced"):
        await enrol_workload(broker, path, "agent-1", agents=["my-agent"])
    assert path.read_text() == "mine"
    assert await broker.ports.reads.workloads("default") == ()


async def test_a_key_that_is_enrolled_for_the_same_is_kept(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    first = await ensure_workload(broker, path, "agent-1", agents=["b", "a"])
    again = await ensure_workload(broker, path, "agent-1", agents=["a", "b"])
    assert again.workload_id == first.workload_id
    other = await ensure_workload(broker, path, "agent-1", agents=["a"])
    assert other.workload_id != first.workload_id
    assert path.with_name(f"agent.json.{first.workload_id}.old").exists()


async def test_a_new_tenant_gets_the_active_policy(broker: Broker) -> None:
    await ensure_tenant(broker, "acme")
    assert set(await broker.tenants()) == {"default", "acme"}
    assert (await broker.ports.store.load(Query("acme"))).tenant.policy_revision == broker.policy.revision


async def test_beside_a_running_broker_nothing_is_activated_or_swept(settings: Settings) -> None:
    plain = explicit_settings(data_dir=settings.data_dir)
    with pytest.raises(SchemaMissing):
        async with opened(plain):
            pytest.fail("opened a broker out of nothing")
    with pytest.raises(SchemaMissing):
        check_database(plain)
    async with build(plain, create=True) as running:
        length = len(await running.ports.reads.entries("default", None))
        async with opened(plain) as beside:
            check_database(plain)
            await new_operator(beside, "Olga", roles=["operator"])
            assert (beside.policy.revision, beside.sweeper._task) == (None, None)
        assert running.policy.revision is not None
        assert len(await running.ports.reads.entries("default", None)) == length + 1


async def test_what_is_closed_is_closed(tmp_path: Path) -> None:
    async with build(explicit_settings(data_dir=tmp_path / "x"), create=True) as broker:
        pass
    with pytest.raises(StoreUnavailable):
        await broker.ports.store.load(Query("default"))
