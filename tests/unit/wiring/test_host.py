"""The test host: what the SDK's test kit asks for, over the real thing, from another thread."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from fakes.wired import says
from stepgrant import receipt
from stepgrant._dpop import DpopKey
from stepgrant._exchange import TokenRequest, WorkloadKey, exchange_sync
from stepgrant.testing._host import GROUP, Host, Start
from stepgrant_broker import testing
from stepgrant_broker.config import SettingsError
from stepgrant_broker.policy.findings import PolicyInvalid


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.TestHost]:
    with testing.start(tmp_path_factory.mktemp("host"), lease_s=1) as started:
        yield started


def test_it_is_what_the_test_kit_asks_for(host: testing.TestHost) -> None:
    starts: Start = testing.start
    is_one: Host = host
    assert callable(starts)
    assert is_one.url == is_one.issuer_url
    assert is_one.url.startswith("http://127.0.0.1:")


def test_the_entry_point_leads_here() -> None:
    found = [point.value for point in entry_points(group=GROUP)]
    assert found in ([], ["stepgrant_broker.testing:start"])


def agent(host: testing.TestHost, client: httpx.Client) -> tuple[WorkloadKey, DpopKey, str, str | None]:
    workload, dpop = WorkloadKey.load(host.enroll("agent", agents=["my-agent"])), DpopKey()
    got = exchange_sync(client, TokenRequest(host.url, workload, dpop, host.issuer_url))
    return workload, dpop, got.token.value, got.nonce


def open_run(host: testing.TestHost, client: httpx.Client, run_key: str) -> httpx.Response:
    _, dpop, token, nonce = agent(host, client)
    url = f"{host.url}/v1/runs"
    headers = {
        "authorization": f"DPoP {token}", "dpop": dpop.proof("POST", url, token=token, nonce=nonce),
        "idempotency-key": run_key,
    }  # fmt: skip
    return client.post(url, json={"agent": "my-agent", "run_key": run_key}, headers=headers)


def test_an_agent_can_open_a_run_that_the_test_then_sees(host: testing.TestHost) -> None:
    with httpx.Client() as client:
        opened = open_run(host, client, "first").json()
    run = host.run(opened["run"])
    assert run is not None
    assert (run.agent, run.key, run.state) == ("my-agent", "first", "open")
    assert opened["lease_ms"] == 1000
    assert [event.type for event in host.entries(run.id)] == ["run_opened"]
    assert run.id in {known.id for known in host.runs(agent="my-agent")}
    heads = httpx.get(f"{host.url}/v1/ledger/keys").json()
    assert receipt.verify(host.receipt(run.id), heads).run == run.id
    assert host.ledger_findings() == []


def test_time_is_the_tests(host: testing.TestHost) -> None:
    with httpx.Client() as client:
        run = open_run(host, client, "lapsing").json()["run"]
        host.advance(120)
        host.sweep_now()
        known = host.run(run)
        assert known is not None
        assert (known.state, known.park_reason) == ("parked", "lease_lapsed")
        assert open_run(host, client, "after").status_code == 200


def test_key_files_are_private_and_new_each_time(host: testing.TestHost) -> None:
    first, second = (host.enroll("same", audiences=["https://tool.example"]) for _ in range(2))
    assert first != second
    assert {stat.S_IMODE(path.stat().st_mode) for path in (first, second)} == {0o600}


def test_people_get_tokens(host: testing.TestHost) -> None:
    token = host.operator("Ann", groups=["finance"])
    answer = httpx.get(f"{host.url}/v1/runs", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200


def test_a_secret_can_be_set(host: testing.TestHost) -> None:
    host.set_secret("crm", "hunter2", hosts=["crm.example"])
    token = host.operator("Olga")
    listed = httpx.get(f"{host.url}/v1/secrets", headers={"authorization": f"Bearer {token}"}).json()
    assert [(one["name"], one["hosts"]) for one in listed["secrets"]] == [("crm", ["crm.example"])]


def test_a_policy_can_be_set_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    with testing.start(tmp_path, policy=says("mine")) as host:
        first = [event.part("body")["revision"] for event in host.entries() if event.type == "policy_activated"]
        with pytest.raises(PolicyInvalid):
            host.set_policy({"stepgrant/main.rego": "package x"})
        second = host.set_policy(says("other"))
        assert second.startswith("2:")
        third = host.set_settings(json.loads((files("stepgrant_policies") / "stepgrant_config/data.json").read_text()))
        assert third.startswith("3:")
        revisions = [event.part("body")["revision"] for event in host.entries() if event.type == "policy_activated"]
        assert revisions == [*first, second, third]


def test_two_hosts_share_nothing(tmp_path: Path, host: testing.TestHost) -> None:
    with testing.start(tmp_path) as other:
        assert other.url != host.url
        path = other.enroll("agent", agents=["my-agent"])
        with httpx.Client() as client, pytest.raises(Exception, match="invalid_client"):
            exchange_sync(client, TokenRequest(host.url, WorkloadKey.load(path), DpopKey(), host.issuer_url))


def test_closing_it_ends_its_thread_and_may_be_repeated(tmp_path: Path) -> None:
    started = testing.start(tmp_path)
    url = started.url
    started.close()
    started.close()
    assert not started._thread.is_alive()
    assert not [one for one in threading.enumerate() if one.name == "stepgrant-test-broker" and one is started._thread]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")
    with pytest.raises(RuntimeError, match="closed"):
        started.enroll("late", agents=["my-agent"])


def test_what_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(SettingsError, match="LEASE_MS"):
        testing.start(tmp_path, lease_s=0)
    with pytest.raises(PolicyInvalid):
        testing.start(tmp_path, policy={"stepgrant/main.rego": "package stepgrant\n"})
    assert threading.active_count() <= before + 1


def test_a_developers_environment_does_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_BROKER_TENANT", "elsewhere")
    monkeypatch.setenv("STEPGRANT_BROKER_NONSENSE", "1")
    with testing.start(tmp_path) as started:
        assert started.settings.tenant == "default"
