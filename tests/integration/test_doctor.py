"""`stepgrant doctor` beside real services that are broken: each is named, with what mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from commandline import Done, caller
from stepgrant_broker.config import load_settings
from stepgrant_broker.policy.bundle import Bundle, read_directory
from stepgrant_broker.policy.opa_bundle import opa_bundle
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.wiring import opened
from stepgrant_broker.wiring.doctor import versions
from stepgrant_broker.wiring.doctor.versions import TESTED
from stepgrant_services.binaries import KINDS

if TYPE_CHECKING:
    from stepgrant_services import OpaServer, PostgresServer, VaultServer

Findings = dict[str, dict[str, Any]]
Doctor = Callable[[], Findings]
ISSUERS = """
[issuer.crm-key]
kind = "vault-kv"
mount = "secret"
path = "agents/crm"
member = "api_key"
header = "X-Api-Key"
hosts = ["crm.example"]
"""
RULE = 'package stepgrant\n\ndefault decision := {"effect": "deny", "reasons": ["no"]}\n'


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    return caller(capsys, ())


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Done]) -> Doctor:
    """The doctor of a broker with database and keys, by place; with several findings in a place, the worst."""
    monkeypatch.setenv("STEPGRANT_BROKER_DATA_DIR", str(tmp_path / "broker"))
    monkeypatch.setenv("STEPGRANT_BROKER_PUBLIC_URL", "http://127.0.0.1:9")
    assert command("db", "migrate").code == 0

    def run() -> Findings:
        done = command("doctor", "--json")
        found: Findings = {}
        for one in done.json["findings"]:
            place = f"{one['area']}.{one['name']}"
            if found.get(place, {}).get("state") != "fail":
                found[place] = one
            assert one["fix"] or one["state"] == "ok"
        assert done.code == int(any(one["state"] == "fail" for one in found.values()))
        return found

    return run


@pytest.fixture
def to_vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Settings of a broker on this Vault with this token; the token's file."""

    def use(addr: str, token: str) -> Path:
        held, issuers = tmp_path / "vault.token", tmp_path / "issuers.toml"
        held.write_text(token)
        held.chmod(0o600)
        issuers.write_text(ISSUERS)
        monkeypatch.setenv("STEPGRANT_BROKER_VAULT_ADDR", addr)
        monkeypatch.setenv("STEPGRANT_BROKER_VAULT_AUTH", "token")
        monkeypatch.setenv("STEPGRANT_BROKER_VAULT_TOKEN_FILE", str(held))
        monkeypatch.setenv("STEPGRANT_BROKER_ISSUERS_FILE", str(issuers))
        return held

    return use


def test_a_vault_that_is_sealed(
    doctor: Doctor, new_vault: Callable[..., VaultServer], to_vault: Callable[[str, str], Path]
) -> None:
    with new_vault(durable=True) as vault:
        to_vault(vault.addr, vault.root_token)
        vault.seal()
        found = doctor()
    assert (found["vault.sealed"]["state"], found["vault.version"]["state"]) == ("fail", "ok")
    assert "vault.login" not in found


def test_a_vault_that_is_not_there(doctor: Doctor, to_vault: Callable[[str, str], Path]) -> None:
    to_vault("http://127.0.0.1:9", "hvs.made-up")
    found = doctor()
    assert found["vault.reachable"]["state"] == "fail"
    assert "made-up" not in str(found)


def test_a_token_that_is_none_and_one_that_may_nothing(
    doctor: Doctor, vault_server: VaultServer, to_vault: Callable[[str, str], Path]
) -> None:
    to_vault(vault_server.addr, "hvs.made-up")
    found = doctor()
    assert found["vault.login"]["state"] == "fail"
    made = vault_server.request("POST", "auth/token/create-orphan", {"policies": ["default"], "ttl": "5m"})
    to_vault(vault_server.addr, made["auth"]["client_token"])
    found = doctor()
    assert found["vault.login"]["state"] == "ok"
    assert "the broker lacks " in found["issuers.crm-key"]["what"]
    assert "vault setup" in found["issuers.crm-key"]["fix"]


def test_the_versions_are_those_that_the_tests_take() -> None:
    taken = {**KINDS["vault"].accepted}
    taken |= {"OPA": KINDS["opa"].accepted["Version"], "PostgreSQL": KINDS["postgres"].accepted["postgres"]}
    assert taken == TESTED


def test_root_is_too_much(doctor: Doctor, vault_server: VaultServer, to_vault: Callable[[str, str], Path]) -> None:
    to_vault(vault_server.addr, vault_server.root_token)
    assert doctor()["vault.login"]["state"] == "warn"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "policy"
    (folder / "stepgrant").mkdir(parents=True)
    (folder / "stepgrant" / "main.rego").write_text(RULE)
    monkeypatch.setenv("STEPGRANT_BROKER_POLICY_DIR", str(folder))
    monkeypatch.setenv("STEPGRANT_BROKER_POLICY_ENGINE", "opa")
    return folder


@pytest.fixture
def opa_of_ours(
    policy: Path, tmp_path: Path, command: Callable[..., Done], opa_server: Callable[..., OpaServer],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:  # fmt: skip
    """An OPA with the broker's policy."""
    bundle = tmp_path / "bundle.tar.gz"
    assert command("policy", "build", str(policy), "-o", str(bundle)).code == 0
    with opa_server(bundle, bundle=True) as opa:
        monkeypatch.setenv("STEPGRANT_BROKER_OPA_URL", opa.url)
        yield


@pytest.mark.usefixtures("opa_of_ours")
def test_versions_that_it_is_not_tested_with(
    doctor: Doctor, command: Callable[..., Done], vault_server: VaultServer, to_vault: Callable[[str, str], Path],
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What real services say of themselves: known now, and of no range once the ranges are others. A warning only."""
    to_vault(vault_server.addr, vault_server.root_token)
    monkeypatch.setenv("STEPGRANT_BROKER_DATABASE_URL", postgres_server.create_database())
    assert command("db", "migrate").code == 0
    places = ("opa.version", "vault.version", "database.version")
    found = doctor()
    assert [found[place]["state"] for place in places] == ["ok", "ok", "ok"]
    known = [found[place]["what"].split() for place in places]
    assert known[0][0] == "OPA"
    assert known[1][0] in {"Vault", "OpenBao"}
    assert known[2][0] == "PostgreSQL"
    monkeypatch.setattr(versions, "TESTED", dict.fromkeys(TESTED, ((0, 1), (0, 2))))
    found = doctor()
    for place, (product, number) in zip(places, known, strict=True):
        assert (found[place]["state"], found[place]["what"]) == ("warn", f"it is version {number}")
        assert f"{product} 0.1 or newer, before 0.2" in found[place]["fix"]


def test_an_opa_with_the_policy_with_another_and_none(
    doctor: Doctor, command: Callable[..., Done], opa_server: Callable[..., OpaServer], policy: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bundle = tmp_path / "bundle.tar.gz"
    assert command("policy", "build", str(policy), "-o", str(bundle)).code == 0
    with opa_server(bundle, bundle=True) as opa:
        monkeypatch.setenv("STEPGRANT_BROKER_OPA_URL", opa.url)
        assert doctor()["opa.revision"]["state"] == "ok"
        (policy / "stepgrant" / "main.rego").write_text(RULE.replace('"no"', '"never"'))
        found = doctor()
        assert found["opa.revision"]["state"] == "fail"
        assert "another policy" in found["opa.revision"]["what"]
    found = doctor()
    assert (found["opa.revision"]["state"], found["opa.version"]["state"]) == ("fail", "unseen")


def test_an_opa_with_a_policy_in_force_that_newer_checks_find_fault_with(
    doctor: Doctor, opa_server: Callable[..., OpaServer], policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (policy / "stepgrant" / "main.rego").write_text(RULE + "\ndenny := true\n")
    read = read_directory(policy)
    (tmp_path / "bundle.tar.gz").write_bytes(opa_bundle(read))
    with opa_server(tmp_path / "bundle.tar.gz", bundle=True) as opa:
        monkeypatch.setenv("STEPGRANT_BROKER_OPA_URL", opa.url)
        found = doctor()
        assert (found["policy.text"]["state"], found["opa.answers"]["state"]) == ("fail", "fail")
        asyncio.run(activate_unchecked(read))
        found = doctor()
        assert (found["policy.text"]["state"], found["opa.revision"]["state"]) == ("warn", "ok")


async def activate_unchecked(policy: Bundle) -> None:
    """As a broker did whose checks had nothing against it."""
    async with opened(load_settings()) as broker:
        revision = await next_revision(broker.ports, policy.digest)
        await activate_policy(broker.ports, "default", None, revision=revision, text=policy.files)


def test_a_postgres_that_is_gone_or_refuses_the_password(
    doctor: Doctor, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Done]
) -> None:
    url = postgres_server.create_database()
    monkeypatch.setenv("STEPGRANT_BROKER_DATABASE_URL", url)
    assert doctor()["database.schema"]["state"] == "fail"
    assert command("db", "migrate").code == 0
    found = doctor()
    assert (found["database.schema"]["state"], found["database.clock"]["state"]) == ("ok", "ok")
    monkeypatch.setenv("STEPGRANT_BROKER_DATABASE_URL", url.replace(postgres_server.password, "made-up-password"))
    found = doctor()
    assert (found["database.schema"]["state"], found["database.version"]["state"]) == ("fail", "unseen")
    assert "made-up-password" not in str(found)
    monkeypatch.setenv("STEPGRANT_BROKER_DATABASE_URL", "postgresql://u:made-up-password@127.0.0.1:9/none")
    found = doctor()
    assert found["database.schema"]["state"] == "fail"
    assert "made-up-password" not in str(found)
