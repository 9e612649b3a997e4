"""`stepgrant doctor` on real installations: each broken thing is named, with what mends it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

from clerks import SETTINGS
from commandline import Done, caller
from stepgrant_broker.config import load_settings
from stepgrant_broker.policy.bundle import read_directory, starter_files
from stepgrant_broker.testing import TestHost, start
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.wiring import opened
from trusted import issuer_table, rule_table, trust_text

AGENT = """
import os, stepgrant
with stepgrant.run("job", agent="clerk"):
    os.kill(os.getpid(), 9)
"""

Doctor = Callable[[], tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database and keys, as `stepgrant db migrate` makes them, and the environment of their broker."""
    folder = tmp_path / "broker"
    monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(folder))
    monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", "http://127.0.0.1:9")
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    return caller(capsys, ())


@pytest.fixture
def doctor(command: Callable[..., Done]) -> Doctor:
    """Run it; exit code and findings by place. One that fails has a fix, and a failure is the exit code."""

    def run() -> tuple[int, dict[str, dict[str, Any]]]:
        done = command("doctor", "--json")
        findings = done.json["findings"]
        assert all(one["fix"] for one in findings if one["state"] != "ok")
        assert done.code == int(any(one["state"] == "fail" for one in findings))
        return done.code, {f"{one['area']}.{one['name']}": one for one in findings}

    return run


def open_a_run(host: TestHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent opens a run and is never heard of again."""
    monkeypatch.setenv("STEPGRANT_URL", host.url)
    monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(host.enroll("w", agents=["clerk"])))
    died = subprocess.run([sys.executable, "-c", AGENT], check=False, timeout=120)
    assert died.returncode == -SIGKILL


def test_a_running_broker_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doctor: Doctor) -> None:
    with start(tmp_path / "broker") as host:
        monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
        monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", host.url)
        code, found = doctor()
    assert code == 0
    bad = {place: one["what"] for place, one in found.items() if one["state"] == "fail"}
    assert bad == {}
    well = {place for place, one in found.items() if one["state"] == "ok"}
    assert {"service.ready", "keys.signing", "keys.wrapping", "database.schema", "database.clock"} <= well
    assert {"work.sweeper", "work.leases", "policy.text", "policy.revision", "service.clock"} <= well


def test_a_running_broker_with_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doctor: Doctor) -> None:
    with start(tmp_path / "broker") as host:
        monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
        monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", host.url)
        for ahead_s, said in ((-3600, "its clock is 3"), (3600, "its clock is -3")):
            here = SimpleNamespace(time=lambda ahead_s=ahead_s: time.time() + ahead_s)
            monkeypatch.setattr("stepgrant_broker.wiring.doctor.service.time", here)
            code, found = doctor()
            assert (code, found["service.clock"]["state"]) == (1, "fail")
            assert found["service.clock"]["what"].startswith(said)
            assert found["service.clock"]["fix"] == "set both by NTP"


def test_another_broker_at_the_address_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Done], doctor: Doctor
) -> None:
    with start(tmp_path / "other") as other:
        monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "mine"))
        monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", other.url)
        assert doctor()[1]["service.running"]["state"] == "unseen"
        assert command("db", "migrate").code == 0
        code, found = doctor()
    assert (code, found["service.running"]["state"], "service.ready" in found) == (1, "fail", False)
    assert "STEPGRANT_BROKER_PUBLIC_URL" in found["service.running"]["fix"]


@pytest.mark.usefixtures("installation")
def test_a_policy_that_names_an_issuer_that_is_not_there(
    tmp_path: Path, command: Callable[..., Done], doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("db", "migrate")
    monkeypatch.setenv("STEPGRANT_BROKER_POLICY_DIR", str(tmp_path / "policy"))
    for path, data in starter_files().items():
        (tmp_path / "policy" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "policy" / path).write_bytes(data)
    settings = tmp_path / "policy" / "stepgrant_config" / "data.json"
    settings.write_bytes(settings.read_bytes().replace(b'{"effect": "read"}', b'{"effect": "read", "issuer": "jvt"}'))
    _, found = doctor()
    assert found["policy.text"]["state"] == "fail"
    assert "write jwt" in found["policy.text"]["what"]


def test_a_policy_in_force_that_newer_checks_find_fault_with(
    tmp_path: Path, command: Callable[..., Done], doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker starts with it, so the doctor warns; while it is only on disk, it is a failure."""
    policy = tmp_path / "policy"
    for path, data in starter_files().items():
        (policy / path).parent.mkdir(parents=True, exist_ok=True)
        (policy / path).write_bytes(data)
    faulty = policy / "stepgrant" / "more.rego"
    faulty.write_text("# METADATA\n# title: More\npackage stepgrant\n\ndenny := true\n")
    monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
    monkeypatch.setenv("STEPGRANT_BROKER_POLICY_DIR", str(policy))
    assert command("db", "migrate").code == 0
    _, found = doctor()
    assert (found["policy.text"]["state"], "policy.revision" in found) == ("fail", False)
    asyncio.run(_activate_unchecked(policy))
    _, found = doctor()
    assert (found["policy.text"]["state"], found["policy.revision"]["state"]) == ("warn", "ok")
    assert "stepgrant/more.rego:5: unused_rule" in found["policy.text"]["what"]
    assert "in force" in found["policy.text"]["fix"]
    settings = policy / "stepgrant_config" / "data.json"
    settings.write_bytes(settings.read_bytes() + b"\n")
    assert doctor()[1]["policy.text"]["state"] == "fail"


async def _activate_unchecked(policy: Path) -> None:
    """As a broker did whose checks had nothing against it."""
    bundle = read_directory(policy)
    async with opened(load_settings()) as broker:
        revision = await next_revision(broker.ports, bundle.digest)
        await activate_policy(broker.ports, "default", None, revision=revision, text=bundle.files)


def test_people_read_a_line_for_each_and_what_to_do(installation: Path, command: Callable[..., Done]) -> None:
    done = command("doctor")
    assert done.code == 1
    assert "FAIL keys folder" in done.out
    assert "-> make them once with `stepgrant db migrate`" in done.out
    assert not installation.exists()


def test_a_misspelt_setting_is_the_first_thing_said(
    installation: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPGRANT_BROKER_LEESE_MS", "1000")
    _, found = doctor()
    assert set(found) == {"settings.environment"}
    assert "did you mean STEPGRANT_BROKER_LEASE_MS?" in found["settings.environment"]["what"]
    assert not installation.exists()


def test_keys_that_others_can_read(installation: Path, command: Callable[..., Done], doctor: Doctor) -> None:
    command("db", "migrate")
    key = next(path for path in (installation / "keys").iterdir() if path.is_file())
    key.chmod(0o644)
    _, found = doctor()
    assert found["keys.permissions"]["state"] == "fail"
    assert key.name in found["keys.permissions"]["what"]


def test_keys_of_another_installation_or_none(installation: Path, command: Callable[..., Done], doctor: Doctor) -> None:
    command("db", "migrate")
    shutil.rmtree(installation / "keys")
    (installation / "keys").mkdir(mode=0o700)
    _, found = doctor()
    assert (found["keys.signing"]["state"], found["keys.wrapping"]["state"]) == ("fail", "fail")
    assert found["database.records"]["state"] == "unseen"


def test_a_database_that_is_none(installation: Path, command: Callable[..., Done], doctor: Doctor) -> None:
    command("db", "migrate")
    (installation / "stepgrant.db").write_bytes(b"no database" * 1000)
    _, found = doctor()
    assert found["database.schema"]["state"] == "fail"
    assert found["policy.text"]["state"] == "ok"


def test_a_postgres_without_its_driver(installation: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a look needs of the set-up is a finding, and the other looks go on."""
    monkeypatch.setenv("STEPGRANT_BROKER_DATABASE_URL", "postgresql://u:made-up-password@127.0.0.1:9/none")
    finding = SimpleNamespace(util=SimpleNamespace(find_spec=lambda _: None))
    monkeypatch.setattr("stepgrant_broker.wiring.databases.importlib", finding)
    _, found = doctor()
    assert found["settings.schema"]["state"] == "fail"
    assert "pip install 'stepgrant[postgres]'" in found["settings.schema"]["what"]
    assert {"policy.text", "identity.issuers", "service.running"} <= set(found)
    assert "made-up-password" not in str(found)
    assert not installation.exists()


def test_issuers_of_identities(
    tmp_path: Path, command: Callable[..., Done], doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose keys can be had, and one that cannot be reached; then a file with a fault."""
    monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
    assert command("db", "migrate").code == 0
    assert doctor()[1]["identity.issuers"]["state"] == "ok"
    key = ECAlgorithm.to_jwk(generate_private_key(SECP256R1()).public_key(), as_dict=True)
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{**key, "kid": "one", "alg": "ES256", "use": "sig"}]}))
    away = issuer_table("kubernetes", "away", jwks_url="http://127.0.0.1:9/keys")
    trust = tmp_path / "trust.toml"
    trust.write_text(
        trust_text(issuer_table("oidc"), away, rule_table("oidc"), rule_table("kubernetes", issuer="away"))
    )
    trust.chmod(0o600)
    monkeypatch.setenv("STEPGRANT_BROKER_TRUST_FILE", str(trust))
    code, found = doctor()
    assert (code, found["identity.oidc"]["state"], found["identity.away"]["state"]) == (1, "ok", "fail")
    assert "the keys of issuer away are out of reach" in found["identity.away"]["what"]
    trust.write_text(trust_text(issuer_table("oidc"), rule_table("oidc", issuer="nobody")))
    code, found = doctor()
    assert (code, found["identity.trust_file"]["state"]) == (1, "fail")
    assert "trust.toml: [[rule]] refunds: issuer is not the name" in found["identity.trust_file"]["what"]


def test_plain_http_to_another_machine(installation: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", "http://192.0.2.1:1")
    monkeypatch.setattr("stepgrant_broker.wiring.doctor.service.PATIENCE_S", 0.2)
    _, found = doctor()
    assert "in clear" in found["address.public_url"]["what"]
    assert not installation.exists()


def test_a_policy_with_a_syntax_error_and_one_that_is_not_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doctor: Doctor
) -> None:
    policy = tmp_path / "policy"
    for name, text in starter_files().items():
        (policy / name).parent.mkdir(parents=True, exist_ok=True)
        (policy / name).write_bytes(text)
    with start(tmp_path / "broker") as host:
        monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
        monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", host.url)
        monkeypatch.setenv("STEPGRANT_BROKER_POLICY_DIR", str(policy))
        _, found = doctor()
        assert found["policy.revision"]["state"] == "ok"
        main = policy / "stepgrant" / "decision.rego"
        main.write_text(main.read_text() + "\n# a remark\n")
        _, found = doctor()
        assert found["policy.revision"]["state"] == "warn"
        main.write_text(main.read_text() + "\nallow if {\n")
        _, found = doctor()
    assert found["policy.text"]["state"] == "fail"
    assert main.name in found["policy.text"]["what"]


def test_runs_that_nobody_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doctor: Doctor) -> None:
    with start(tmp_path / "broker", settings=SETTINGS, lease_s=1, sweep_ms=600_000) as host:
        open_a_run(host, monkeypatch)
        monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
        monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", host.url)
        monkeypatch.setattr("stepgrant_broker.wiring.doctor.records.LATE_MS", -10_000)
        _, found = doctor()
    assert found["work.sweeper"]["state"] == "warn"
    assert "1 run " in found["work.sweeper"]["what"]
