"""Secrets and certificates of a real Vault: a key-value store and a small CA, and our issuers on them.

The broker's session has exactly the rights that the issuers' configuration names (`broker_rules`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from changing import replace
from logins import broker_token
from stepgrant._own_key import OwnKey
from stepgrant_broker.domain.ports import GrantOrder, Issuer, Minted
from stepgrant_broker.issuers.vault_kv import KvConfig, VaultKvIssuer
from stepgrant_broker.issuers.vault_pki import PkiConfig, VaultPkiIssuer
from stepgrant_broker.vault.client import Vault
from vaulted import client, mounted, unique

if TYPE_CHECKING:
    from stepgrant_broker.issuers.file import IssuerConfig
    from stepgrant_services import VaultServer

URI: Final = "spiffe://acme/agent"
API_KEY: Final = "sk-made-up-key-of-the-crm"
PKI_ROLE: Final = "agents"


def order_now(order: GrantOrder, ttl_s: int = 60, **changed: Any) -> GrantOrder:  # noqa: ANN401 - members of the order
    """This order, from now on: a real CA goes by its own clock."""
    now = int(time.time() * 1000)
    return replace(order, issued_at=now, expires_at=(now // 1000 + ttl_s) * 1000, **changed)


def permit(server: VaultServer, config: IssuerConfig, token_role: str) -> None:
    """What the issuer needs in Vault besides its engine."""
    for name, text in config.vault_policies().items():
        server.request("PUT", f"sys/policies/acl/{name}", {"policy": text})
    server.request("POST", f"auth/token/roles/{token_role}", {
        "orphan": True, "renewable": False, "token_no_default_policy": True, "token_type": "service",
        "allowed_policies_glob": ["stepgrant.*"], "token_explicit_max_ttl": 400,
    })  # fmt: skip


@dataclass
class Lab:
    """What both have: the server, our session of least rights, and the issuer."""

    server: VaultServer
    vault: Vault
    issuer: Issuer

    async def mint(self, order: GrantOrder) -> Minted:
        """Intend and mint."""
        return await self.issuer.mint(order, await self.issuer.intend(order))

    def tokens(self) -> list[str]:
        """The per-grant tokens that live."""
        return [left for left in self.server.leftovers() if left.startswith("token ")]

    def clean(self) -> None:
        """Take back what a test left alive."""
        for left in self.tokens():
            self.server.request("POST", "auth/token/revoke-accessor", {"accessor": left.split(" ")[1]})


@dataclass
class KvLab(Lab):
    """A store, with one secret."""

    config: KvConfig

    def write(self, **members: object) -> int:
        """Write the next version; its number."""
        data = self.server.request("POST", self.config.data_path, {"data": members})["data"]
        number: int = data["version"]
        return number

    def change(self, how: str, *versions: int) -> None:
        """`delete`, `undelete` or `destroy` versions."""
        self.server.request("POST", f"{self.config.mount}/{how}/{self.config.path}", {"versions": list(versions)})


@asynccontextmanager
async def kv_lab(server: VaultServer, folder: Path, **changed: Any) -> AsyncIterator[KvLab]:  # noqa: ANN401 - config
    """A store with `agents/crm`, of which version 1 is written."""
    config = KvConfig(
        name=unique("crm"), mount=mounted(server, "kv", options={"version": "2"}), path="agents/crm",
        hosts=("crm.example",), members=("username", "api_key"), header=None, max_ttl_s=300, token_role="stepgrant",
    )  # fmt: skip
    config = replace(config, **changed)
    permit(server, config, config.token_role)
    async with client(server.addr, broker_token(server, config.broker_rules(), folder)) as vault:
        lab = KvLab(server, vault, VaultKvIssuer(config, vault), config)
        lab.write(username="agent", api_key=API_KEY, owner="not for agents")
        try:
            yield lab
        finally:
            lab.clean()


@dataclass
class PkiLab(Lab):
    """A CA with one role. `own` is the agent's key."""

    config: PkiConfig
    ca_pem: str
    own: OwnKey

    def role(self, **settings: object) -> None:
        """Define the role anew."""
        good = {
            "allowed_uri_sans": ["spiffe://acme/*"], "allowed_domains": ["agents.example"], "allow_subdomains": True,
            "allow_any_name": False, "require_cn": False, "key_type": "any", "max_ttl": "300s", "client_flag": True,
            "server_flag": False, "use_csr_common_name": False, "use_csr_sans": False,
        }  # fmt: skip
        self.server.request("POST", f"{self.config.mount}/roles/{PKI_ROLE}", {**good, **settings})

    def order(self, order: GrantOrder, ttl_s: int = 60, **changed: Any) -> GrantOrder:  # noqa: ANN401 - order
        """An order for a certificate over the agent's key, from now on."""
        params: Mapping[str, Any] = {"role": PKI_ROLE, "uri_sans": [URI]}
        return order_now(order, ttl_s, **{"params": params, "csr": self.own.request.pem, **changed})

    def revoked_at(self, serial: str) -> int:
        """When Vault's list says that it was revoked; 0: never."""
        when: int = self.server.request("GET", f"{self.config.mount}/cert/{serial}")["data"]["revocation_time"]
        return when


@asynccontextmanager
async def pki_lab(server: VaultServer, folder: Path, **changed: Any) -> AsyncIterator[PkiLab]:  # noqa: ANN401 - config
    """A CA with one good role."""
    config = PkiConfig(
        name=unique("mesh"), mount=mounted(server, "pki"), roles=(PKI_ROLE,), hosts=("127.0.0.1",), max_ttl_s=300,
        token_role="stepgrant",
    )  # fmt: skip
    config = replace(config, **changed)
    made = server.request(
        "POST", f"{config.mount}/root/generate/internal",
        {"common_name": "test CA", "key_type": "ec", "key_bits": 256, "ttl": "24h"},
    )["data"]  # fmt: skip
    permit(server, config, config.token_role)
    async with client(server.addr, broker_token(server, config.broker_rules(), folder)) as vault:
        issuer = VaultPkiIssuer(config, vault)
        lab = PkiLab(server, vault, issuer, config, made["certificate"], OwnKey())
        lab.role()
        try:
            yield lab
        finally:
            lab.clean()
