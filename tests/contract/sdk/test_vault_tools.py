"""Tools that get their credential from a real Vault, through a whole broker: a certificate, and a stored secret."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest

import stepgrant
from faces import Face, faces
from logins import broker_token
from mtls import MutualTls, mutual_tls
from papers import API_KEY, PKI_ROLE, URI, permit
from stepgrant import Credential, Inject, errors
from stepgrant._csr import key_name
from stepgrant._secrets import LIVE
from stepgrant.testing import TestBroker
from stepgrant_broker.issuers.vault_kv import KvConfig
from stepgrant_broker.issuers.vault_pki import PkiConfig
from vaulted import mounted, unique

if TYPE_CHECKING:
    from stepgrant_services import VaultServer

ISSUERS = """
[issuer.{pki.name}]
kind = "vault-pki"
mount = "{pki.mount}"
roles = ["{role}"]
hosts = ["{host}"]

[issuer.{kv.name}]
kind = "vault-kv"
mount = "{kv.mount}"
path = "{kv.path}"
hosts = ["{host}"]
header = "X-Api-Key"
member = "api_key"
"""


@dataclass
class Place:
    """A broker on a real Vault, and a target that takes its certificates."""

    broker: TestBroker
    target: MutualTls
    pki: str
    kv: str

    def at(self) -> dict[str, Any]:
        return {"agent": "agent", "url": self.broker.url, "workload_key": self.broker.key_of("agent")}


@pytest.fixture
def place(vault_server: VaultServer, tmp_path: Path) -> Iterator[Place]:
    pki = PkiConfig(unique("mesh"), mounted(vault_server, "pki"), (PKI_ROLE,), (), 300, "stepgrant")
    kv = KvConfig(
        unique("crm"), mounted(vault_server, "kv", options={"version": "2"}), "agents/crm", (), (), None, 300,
        "stepgrant",
    )  # fmt: skip
    ca = {"common_name": "test CA", "key_type": "ec", "key_bits": 256, "ttl": "24h"}
    ca_pem = vault_server.request("POST", f"{pki.mount}/root/generate/internal", ca)["data"]["certificate"]
    role = {
        "allowed_uri_sans": ["spiffe://acme/*"], "require_cn": False, "key_type": "ec", "key_bits": 256,
        "max_ttl": "300s", "use_csr_sans": False, "use_csr_common_name": False, "server_flag": False,
    }  # fmt: skip
    vault_server.request("POST", f"{pki.mount}/roles/{PKI_ROLE}", role)
    vault_server.request("POST", kv.data_path, {"data": {"api_key": API_KEY}})
    rules: dict[str, tuple[str, ...]] = {}
    for config in (pki, kv):
        permit(vault_server, config, config.token_role)
        rules |= config.broker_rules()
    with mutual_tls(tmp_path, ca_pem) as target:
        issuers = tmp_path / "issuers.toml"
        issuers.write_text(ISSUERS.format(pki=pki, kv=kv, role=PKI_ROLE, host=target.url.removeprefix("https://")))
        broker = TestBroker(
            tmp_path / "broker",
            vault_addr=vault_server.addr,
            vault_auth="token",
            vault_token_file=broker_token(vault_server, rules, tmp_path),
            issuers_file=issuers,
        )
        try:
            yield Place(broker, target, pki.name, kv.name)
        finally:
            broker.close()


@faces
async def test_a_certificate_over_a_key_that_never_left(face: Face, place: Place) -> None:
    params = {"role": PKI_ROLE, "uri_sans": [URI]}
    place.broker.allow("agent", {"who": {"effect": "read", "issuer": place.pki, "params": params}})

    names: list[str] = []

    def who(cred: Annotated[Credential, Inject]) -> list[Any]:
        context = cred.ssl_context(place.target.url, cafile=place.target.ca_file)
        with httpx.Client(verify=context, trust_env=False) as client:
            shown = client.get(place.target.url).json()
        names.append(key_name(cred.private_key.public_key()))
        return [list(pair) for pair in shown["subjectAltName"]]

    async with face.run(**place.at()) as held:
        assert await face.call(face.tool(who, effect="read", certificate=True)) == [["URI", URI]]
    entries = place.broker.entries(held.id)
    assert [entry.type for entry in entries] == [
        "run_opened", "step_prepared", "decision", "grant_issued", "lease_recorded", "step_completed", "grant_revoked",
        "run_ended",
    ]  # fmt: skip
    grant = entries[3].part("body")
    assert (grant["revocation"], grant["intent"]) == ("expiry", True)
    assert [grant["csr_key"]] == names


@faces
async def test_without_the_declaration_the_step_did_not_run(face: Face, place: Place) -> None:
    params = {"role": PKI_ROLE, "uri_sans": [URI]}
    place.broker.allow("agent", {"who": {"effect": "once", "issuer": place.pki, "params": params}})
    ran = []
    async with face.run(**place.at()) as held:
        held._session._caller.timeouts = stepgrant.Timeouts(broker=2)
        with pytest.raises(errors.BrokerUnavailable, match="declare the tool with certificate=True"):
            await face.call(face.tool(lambda: ran.append(1), name="who"))
    assert ran == []


@faces
async def test_a_stored_secret_in_its_header_and_known_to_the_tripwire(face: Face, place: Place) -> None:
    place.broker.allow("agent", {"look": {"effect": "read", "issuer": place.kv, "params": {"version": 1}}})

    def look(leak: bool, cred: Annotated[Credential, Inject]) -> str:  # noqa: FBT001 - a tool's argument
        value = cred.headers("GET", place.target.url)["X-Api-Key"]
        with pytest.raises(errors.CredentialMisuse):
            cred.headers("GET", "https://evil.example")
        return value if leak else str(len(value))

    tool = face.tool(look, effect="read", step_id="look-{leak}")
    try:
        async with face.run(**place.at()) as held:
            assert await face.call(tool, leak=False) == str(len(API_KEY))
            with pytest.raises(errors.SecretInResult):
                await face.call(tool, leak=True)
        granted = [entry for entry in place.broker.entries(held.id) if entry.type == "grant_issued"]
        assert {entry.part("body")["revocation"] for entry in granted} == {"none"}
    finally:
        LIVE.forget([API_KEY])
