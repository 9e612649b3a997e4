"""Vault as the issuer: its identity tokens are OIDC tokens, its keys are found by discovery and rotated by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

import stepgrant
from stepgrant.errors import AuthenticationFailed
from stepgrant.testing import TestBroker
from stepgrant_broker.testing import TestHost
from trusted import BROKER, issuer_table, rule_table, trust_text

if TYPE_CHECKING:
    from stepgrant_services import VaultServer


@dataclass
class VaultIssuer:
    """A role of Vault's OIDC issuer, and an entity that asks it for tokens."""

    vault: VaultServer
    name: str
    entity: str
    token: str
    alg: str

    @property
    def issuer(self) -> str:
        return f"{self.vault.addr}/v1/identity/oidc"

    def role(self, *, audience: str, ttl: str = "10m", template: str = "{}") -> None:
        """Let the role make tokens for this audience."""
        self.vault.request("POST", f"identity/oidc/key/{self.name}", {
            "algorithm": self.alg, "allowed_client_ids": ["*"], "verification_ttl": "2h", "rotation_period": "2h",
        })  # fmt: skip
        self.vault.request("POST", f"identity/oidc/role/{self.name}", {
            "key": self.name, "client_id": audience, "ttl": ttl, "template": template,
        })  # fmt: skip

    def write(self, path: Path) -> None:
        """Get a token for this identity, as an agent of Vault does, and write it into the file."""
        answer = self.vault.request("GET", f"identity/oidc/token/{self.name}", token=self.token)
        path.write_text(str(answer["data"]["token"]), encoding="ascii")

    def rotate(self) -> None:
        """The next key signs; the old one is gone."""
        for _ in range(2):  # the key that signs next is published already; the second makes one that nobody has seen
            self.vault.request("POST", f"identity/oidc/key/{self.name}/rotate", {"verification_ttl": "0s"})


@pytest.fixture(params=["RS256", "ES384"])
def issuer(vault_server: VaultServer, request: pytest.FixtureRequest) -> Iterator[VaultIssuer]:
    name = f"agents-{uuid4().hex[:8]}"
    vault = vault_server
    vault.request("POST", f"sys/auth/{name}", {"type": "userpass"})
    vault.request("PUT", f"sys/policies/acl/{name}", {
        "policy": f'path "identity/oidc/token/{name}" {{ capabilities = ["read"] }}'
    })  # fmt: skip
    vault.request("POST", f"auth/{name}/users/worker", {"password": name, "token_policies": [name]})
    auth = vault.request("POST", f"auth/{name}/login/worker", {"password": name}, token="")["auth"]
    made = VaultIssuer(vault, name, auth["entity_id"], auth["client_token"], request.param)
    made.role(audience=BROKER)
    yield made
    vault.request("POST", "auth/token/revoke", {"token": made.token})
    vault.request("DELETE", f"sys/auth/{name}")


@contextmanager
def broker_of(folder: Path, made: VaultIssuer, **issuer: object) -> Iterator[TestBroker]:
    table = {"issuer": made.issuer, "discovery": True, "algorithms": [made.alg], "tenant": "default", **issuer}
    rule = rule_table("oidc", f'subject = "{made.entity}"', agents=["billing"])
    folder.mkdir(exist_ok=True)
    file = folder / "trust.toml"
    file.write_text(trust_text(issuer_table("oidc", **table), rule), encoding="utf-8")
    with closing(TestBroker(folder / "broker", trust_file=file)) as broker:
        broker.allow_everything()
        yield broker


def host_of(broker: TestBroker) -> TestHost:
    assert isinstance(broker.host, TestHost)
    return broker.host


def opens(broker: TestBroker, file: Path, key: str) -> str:
    with stepgrant.run(key, agent="billing", url=broker.url, identity_file=file) as run:
        return run.id


def refused(broker: TestBroker, file: Path, reason: str) -> None:
    before = (len(host_of(broker).entries()), len(host_of(broker).runs()))
    with pytest.raises(AuthenticationFailed, match=reason) as caught:
        opens(broker, file, "refused")
    assert caught.value.code == "invalid_client"
    assert (len(host_of(broker).entries()), len(host_of(broker).runs())) == before


def test_an_agent_runs_under_its_identity_of_vault(issuer: VaultIssuer, tmp_path: Path) -> None:
    file = tmp_path / "identity"
    issuer.write(file)
    with broker_of(tmp_path, issuer) as broker:
        run = host_of(broker).run(opens(broker, file, "job"))
        issuer.write(file)
        again = host_of(broker).run(opens(broker, file, "job-2"))

        assert run is not None
        assert again is not None
        assert run.workload == again.workload
        bodies = [event.part("body") for event in host_of(broker).entries()]
        attested = [(body["name"], body["kind"]) for body in bodies if body.get("status") == "attested"]
        assert attested == [("refunds", "oidc")]
        assert host_of(broker).ledger_findings() == []


def test_a_token_of_vault_for_another_audience_or_entity_is_refused(issuer: VaultIssuer, tmp_path: Path) -> None:
    file = tmp_path / "identity"
    with broker_of(tmp_path, issuer) as broker:
        issuer.role(audience="https://other.example")
        issuer.write(file)
        refused(broker, file, "wrong_audience")
        issuer.role(audience=BROKER, ttl="61m")
        issuer.write(file)
        refused(broker, file, "lifetime")
        issuer.role(audience=BROKER)
        issuer.write(file)
        assert opens(broker, file, "job")
        issuer.entity = "somebody-else"
    with broker_of(tmp_path / "second", issuer) as broker:
        refused(broker, file, "no rule of the trust file")
    with broker_of(tmp_path / "third", issuer, algorithms=["EdDSA"]) as broker:
        refused(broker, file, "bad_algorithm")


def test_a_token_by_a_key_that_vault_has_withdrawn_is_refused(issuer: VaultIssuer, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    issuer.write(old)
    issuer.rotate()
    issuer.write(new)
    with broker_of(tmp_path, issuer) as broker:
        refused(broker, old, "unknown_key")
        assert opens(broker, new, "job")
