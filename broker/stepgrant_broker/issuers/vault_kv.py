"""Issuer `vault-kv`: one version of one secret in Vault's key-value store (version 2), given out under a grant.

    [issuer.crm-key]
    kind = "vault-kv"
    path = "agents/crm"
    hosts = ["crm.example"]
    members = ["username", "password"]        # or, for a header: header = "X-Api-Key", member = "api_key"

Rules, and what it honestly is:
* `revocation: none`, as `static`: who has seen the secret has it until people change it at its target. So only policy
  can choose it, and it must name issuer and version (`grant.params.version`): a secret that somebody replaces in Vault
  is not given out until policy says so.
* Path, members and hosts are in the issuers file; neither an agent nor policy can widen them.
* The read is done with a token of the grant's own, which can read this path once and nothing else, so that Vault's
  audit log says for which run and step. Nothing is made in Vault that could live on, so nothing is recorded before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog

from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import Minted, Revocation
from stepgrant_broker.issuers import grant_tokens
from stepgrant_broker.issuers.file import HOST, MOUNT, TEXT, VAULT_NAME, Section
from stepgrant_broker.issuers.grant_tokens import GrantTokens
from stepgrant_broker.vault.client import data_of
from stepgrant_broker.vault.faults import VaultFault, VaultMissing, issuer_fault

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import GrantOrder
    from stepgrant_broker.vault.client import Vault

MAX_TTL_S: Final = 300
MAX_VERSION: Final = 2**31
ROLE: Final = "kv"
HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
HOST_AND_PORT: Final = re.compile(rf"({HOST.pattern})(:[1-9][0-9]{{0,4}})?")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class SecretVersion(Minted):
    """A secret, with the version that Vault says it is."""

    version: int = 0


@dataclass(frozen=True, slots=True)
class KvConfig:
    """One `[issuer.<name>]` of kind `vault-kv`. `members`: which members of the secret leave Vault, in this order."""

    kind: ClassVar[str] = "vault-kv"

    name: str
    mount: str
    path: str
    hosts: tuple[str, ...]
    members: tuple[str, ...]
    header: str | None
    max_ttl_s: int
    token_role: str

    @classmethod
    def read(cls, section: Section) -> KvConfig:
        """From the issuers file. Raises `SectionInvalid`."""
        header = section.maybe_text("header", HEADER)
        members = section.names("members", TEXT) if header is None else (section.text("member"),)
        return cls(
            name=section.name,
            mount=section.text("mount", MOUNT, default="secret"),
            path=section.text("path", MOUNT),
            hosts=section.names("hosts", HOST_AND_PORT),
            members=members,
            header=header,
            max_ttl_s=section.number("max_ttl_s", 1, MAX_TTL_S, default=60),
            token_role=section.text("token_role", VAULT_NAME, default=grant_tokens.DEFAULT_ROLE),
        )

    def build(self, vault: Vault) -> VaultKvIssuer:
        """The issuer itself."""
        return VaultKvIssuer(self, vault)

    def vault_policies(self) -> Mapping[str, str]:
        """One policy that may read this one secret and nothing else."""
        return {
            grant_tokens.policy_name(self.name, ROLE): f'path "{self.data_path}" {{\n'
            '  # The one thing that a per-grant token can do.\n  capabilities = ["read"]\n}\n'
        }

    def broker_rules(self) -> Mapping[str, tuple[str, ...]]:
        """What the broker's own session must be allowed: path to capabilities. The secret itself is not among it."""
        return grant_tokens.token_rules(self.token_role)

    def leases(self) -> tuple[str, ...]:
        """None: a secret has no lease."""
        return ()

    async def probe(self, vault: Vault) -> tuple[str, ...]:
        """Nothing: the broker's own session cannot see the secret, and a version is named only by policy."""
        return ()

    @property
    def data_path(self) -> str:
        """Where version 2 of the store keeps what is at `path`."""
        return f"{self.mount}/data/{self.path}"


class VaultKvIssuer:
    """Gives out the configured secret in the version that policy names."""

    revocation: Revocation = Revocation.NONE
    outside: bool = False
    tokens_of_ours: bool = False

    def __init__(self, config: KvConfig, vault: Vault) -> None:
        self.name = config.name
        self.max_ttl_s = config.max_ttl_s
        self._config = config
        self._tokens = GrantTokens(vault, config.name, config.token_role)

    async def intend(self, order: GrantOrder) -> str | None:
        """Nothing outside is prepared."""
        return None

    async def mint(self, order: GrantOrder, handle: str | None) -> Minted:
        """The secret in the ordered version. Raises `IssuerRefused`, `IssuerUnavailable`."""
        config, version = self._config, self._ordered(order)
        if not 0 < order.expires_at - order.issued_at <= self.max_ttl_s * 1000:
            raise IssuerRefused(f"grants of issuer {self.name} live at most {self.max_ttl_s} s")
        try:
            answer = await self._tokens.read_once(order, ROLE, config.data_path, {"version": str(version)})
            data = data_of(answer)
        except VaultMissing as missing:
            raise self._gone(missing, version) from None
        except VaultFault as fault:
            _log.warning("vault_secret_not_read", jti=order.jti, kind=type(fault).__name__, said=fault.said)
            raise issuer_fault(fault) from None
        _log.info("vault_secret_read", jti=order.jti, version=version, request_id=str(answer.get("request_id"))[:64])
        return self._secret(order, data)

    def _secret(self, order: GrantOrder, data: Mapping[str, Any]) -> SecretVersion:
        config, members, metadata = self._config, data.get("data"), data.get("metadata")
        if not isinstance(members, dict) or not isinstance(metadata, dict):
            raise IssuerRefused(f"{config.mount} did not answer as a key-value store of version 2")
        fields = {}
        for name in config.members:
            value = members.get(name)
            if not isinstance(value, str) or not value:
                raise IssuerRefused(f"the secret at {config.path} has no member {name} that is a text")
            fields[name] = value
        if config.header is not None:
            # To the holder it is what a static secret is: a header and its value.
            fields = {"value": fields[config.members[0]], "header": config.header}
        found = metadata.get("version")
        return SecretVersion(
            "vault-kv" if config.header is None else "static",
            fields,
            order.expires_at,
            hosts=config.hosts,
            version=found if isinstance(found, int) else 0,
        )

    def check(self, order: GrantOrder, minted: Minted) -> None:
        """Refuse another version, another shape, or a longer life than ordered. Raises `IssuerRefused`."""
        config, version = self._config, self._ordered(order)
        if not isinstance(minted, SecretVersion) or minted.version != version:
            raise IssuerRefused(f"Vault answered with another version than {version}")
        kind, names = ("vault-kv", set(config.members)) if config.header is None else ("static", {"value", "header"})
        if minted.kind != kind or minted.fields.keys() != names or not all(minted.fields.values()):
            raise IssuerRefused("a secret has exactly the members that the issuers file names")
        if minted.fields.get("header", config.header) != config.header and config.header is not None:
            raise IssuerRefused("a secret goes in the header that the issuers file names")
        if minted.hosts != config.hosts or minted.lease is not None:
            raise IssuerRefused("a secret is for the configured hosts only and has no lease")
        if not order.issued_at < minted.expires_at <= order.expires_at:
            raise IssuerRefused("a secret's grant ends when ordered")

    async def revoke(self, *, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        """False: only people can end a secret, at its target."""
        return False

    def _ordered(self, order: GrantOrder) -> int:
        version = order.params.get("version")
        if isinstance(version, float) and version.is_integer():
            version = int(version)
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= MAX_VERSION:
            raise IssuerRefused(f"policy must name the version of {self._config.path}: grant.params.version")
        if order.params.keys() != {"version"}:
            raise IssuerRefused("a secret takes no other parameters than its version")
        return version

    def _gone(self, missing: VaultMissing, version: int) -> IssuerUnavailable:
        config, said = self._config, missing.metadata
        if said.get("destroyed") is True:
            return IssuerRefused(f"version {version} of {config.path} was destroyed; let policy name another one")
        if said.get("deletion_time"):
            return IssuerRefused(
                f"version {version} of {config.path} was deleted; undelete it in Vault, or let policy name another one"
            )
        return IssuerRefused(
            f"there is no version {version} of {config.path} at {config.mount}, or that is no key-value store of "
            "version 2"
        )
