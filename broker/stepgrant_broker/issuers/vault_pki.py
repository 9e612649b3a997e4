"""Issuer `vault-pki`: a short client certificate over a key that the agent made, signed by Vault's PKI engine.

    [issuer.mesh]
    kind = "vault-pki"
    mount = "pki"
    roles = ["agents"]
    hosts = ["ledger.example:8443"]
    max_ttl_s = 300

Rules:
* The private key never leaves the agent: its begin carries a certificate request. Of that only the key counts; every
  name comes from policy (`grant.params`: `role`, `uri_sans`, `dns_sans`, `common_name`), within Vault's role.
* `revocation: expiry`: a certificate is as revoked as its verifiers look, and most do not. `revoke` tells Vault's list
  all the same; dead it is when it has expired.
* The life is asked for as `ttl`: `not_after` gets past the role's `max_ttl`, so a grant's own token may not even send
  it. A little less is asked than was ordered, because Vault counts from when it signs, by its own clock.
* `check` reads the certificate itself: this key, exactly these names, no CA, not longer, under the CA that came along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog

from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.grants import MINT_DEADLINE_MS
from stepgrant_broker.domain.ports import Minted, Revocation
from stepgrant_broker.issuers import grant_tokens
from stepgrant_broker.issuers.certificates import Names, refuse_another
from stepgrant_broker.issuers.file import HOST, MOUNT, VAULT_NAME, Section
from stepgrant_broker.issuers.grant_tokens import GrantTokens
from stepgrant_broker.vault.client import data_of
from stepgrant_broker.vault.faults import VaultFault, VaultMissing, VaultRefused, issuer_fault

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import GrantOrder
    from stepgrant_broker.vault.client import Vault

MAX_TTL_S: Final = 300
SPARE_S: Final = 5
FIELDS: Final = frozenset({"certificate", "ca_chain", "serial_number"})
PARAMS: Final = frozenset({"role", "uri_sans", "dns_sans", "common_name"})
HOST_AND_PORT: Final = re.compile(rf"({HOST.pattern})(:[1-9][0-9]{{0,4}})?")
POLICY: Final = """path "{mount}/sign/{role}" {{
  # The one thing that a per-grant token can do. No `not_after`: it gets past the role's max_ttl.
  capabilities = ["update"]
  allowed_parameters = {{
    "csr" = []
    "ttl" = []
    "format" = ["pem"]
    "uri_sans" = []
    "alt_names" = []
    "common_name" = []
    "exclude_cn_from_sans" = [true]
  }}
}}
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PkiConfig:
    """One `[issuer.<name>]` of kind `vault-pki`."""

    kind: ClassVar[str] = "vault-pki"

    name: str
    mount: str
    roles: tuple[str, ...]
    hosts: tuple[str, ...]
    max_ttl_s: int
    token_role: str

    @classmethod
    def read(cls, section: Section) -> PkiConfig:
        """From the issuers file. Raises `SectionInvalid`."""
        return cls(
            name=section.name,
            mount=section.text("mount", MOUNT, default="pki"),
            roles=section.names("roles"),
            hosts=section.names("hosts", HOST_AND_PORT),
            max_ttl_s=section.number("max_ttl_s", 1, MAX_TTL_S, default=MAX_TTL_S),
            token_role=section.text("token_role", VAULT_NAME, default=grant_tokens.DEFAULT_ROLE),
        )

    def build(self, vault: Vault) -> VaultPkiIssuer:
        """The issuer itself."""
        return VaultPkiIssuer(self, vault)

    def vault_policies(self) -> Mapping[str, str]:
        """For each role one policy that may have it sign, and nothing else."""
        return {
            grant_tokens.policy_name(self.name, role): POLICY.format(mount=self.mount, role=role) for role in self.roles
        }

    def broker_rules(self) -> Mapping[str, tuple[str, ...]]:
        """What the broker's own session must be allowed: path to capabilities."""
        roles = {f"{self.mount}/roles/{role}": ("read",) for role in self.roles}
        return {**grant_tokens.token_rules(self.token_role), f"{self.mount}/revoke": ("update",), **roles}

    def leases(self) -> tuple[str, ...]:
        """None: a certificate has no lease."""
        return ()

    async def probe(self, vault: Vault) -> tuple[str, ...]:
        """What is wrong with its roles. Raises `VaultFault`."""
        found: list[str] = []
        for role in self.roles:
            path = f"{self.mount}/roles/{role}"
            try:
                found += findings(path, data_of(await vault.request("GET", path)))
            except VaultMissing:
                found.append(f"Vault has no role {role} at {self.mount}: make {path}")
        return tuple(found)


def findings(path: str, role: Mapping[str, Any]) -> tuple[str, ...]:
    """What is wrong with a role of the PKI engine, each with its mending."""
    found = []
    if role.get("generate_lease") is True:
        found.append(f"certificates of {path} hang on a token that ends: set its generate_lease to false")
    found += [
        f"an agent could name itself in {path}: set its {name} to false"
        for name in ("use_csr_sans", "use_csr_common_name")
        if role.get(name) is not False
    ]
    if role.get("allow_any_name") is True:
        found.append(f"{path} signs every name: set its allow_any_name to false, and list what is allowed")
    if role.get("server_flag") is not False:
        found.append(f"a certificate of {path} could pose as a server: set its server_flag to false")
    return tuple(found)


class VaultPkiIssuer:
    """Has certificate requests signed under the configured roles; policy names role and names."""

    revocation: Revocation = Revocation.EXPIRY
    outside: bool = True
    tokens_of_ours: bool = False

    def __init__(self, config: PkiConfig, vault: Vault) -> None:
        self.name = config.name
        self.max_ttl_s = config.max_ttl_s
        self._config = config
        self._vault = vault
        self._tokens = GrantTokens(vault, config.name, config.token_role)

    async def intend(self, order: GrantOrder) -> str | None:
        """Make the grant's own token; the handle names it. Raises `IssuerRefused`, `IssuerUnavailable`."""
        role, _ = self._ordered(order)
        if not 0 < order.expires_at - order.issued_at <= self.max_ttl_s * 1000:
            raise IssuerRefused(f"certificates of issuer {self.name} live at most {self.max_ttl_s} s")
        try:
            return await self._tokens.make(order, role, longest_s=self.max_ttl_s)
        except VaultFault as fault:
            raise _told(fault, "intend", order) from None

    async def mint(self, order: GrantOrder, handle: str | None) -> Minted:
        """Have the order's request signed. Raises `IssuerRefused`, `IssuerUnavailable`."""
        role, names = self._ordered(order)
        token = self._tokens.take(handle, order.jti)
        body = {
            "csr": order.csr,
            "ttl": f"{_ttl_s(order)}s",
            "format": "pem",
            "exclude_cn_from_sans": True,
            **names.as_parameters(),
        }
        path = f"{self._config.mount}/sign/{role}"
        try:
            answer = await self._vault.request("POST", path, body, token=token, deadline_s=MINT_DEADLINE_MS / 1000)
            data = data_of(answer)
        except VaultFault as fault:
            raise _told(fault, "mint", order) from None
        _log.info("vault_certificate_signed", jti=order.jti, role=role, request_id=str(answer.get("request_id"))[:64])
        return self._certificate(answer, data)

    def _certificate(self, answer: Mapping[str, Any], data: Mapping[str, Any]) -> Minted:
        if answer.get("lease_id"):
            raise IssuerRefused(f"{self._config.mount} gives certificates with a lease: set generate_lease to false")
        chain = data.get("ca_chain") or [data.get("issuing_ca")]
        parts = [data.get("certificate"), data.get("serial_number"), *(chain if isinstance(chain, list) else [None])]
        if not all(isinstance(part, str) and part for part in parts) or not isinstance(data.get("expiration"), int):
            raise IssuerRefused(f"{self._config.mount} did not answer with a certificate: is it a PKI engine?")
        certificate, serial, *authorities = (str(part) for part in parts)
        return Minted(
            "vault-pki",
            {"certificate": certificate, "ca_chain": "\n".join(authorities), "serial_number": serial},
            expires_at=data["expiration"] * 1000,
            hosts=self._config.hosts,
            lease=serial,
        )

    def check(self, order: GrantOrder, minted: Minted) -> None:
        """Read the certificate and compare it with the order. Raises `IssuerRefused`."""
        _, names = self._ordered(order)
        if minted.kind != "vault-pki" or minted.fields.keys() != FIELDS or not all(minted.fields.values()):
            raise IssuerRefused("a certificate comes with its chain and its serial number, and nothing else")
        if not order.issued_at < minted.expires_at <= order.expires_at:
            raise IssuerRefused(
                "Vault's certificate ends at another time than ordered; see that its clock and the broker's agree"
            )
        if minted.hosts != self._config.hosts or minted.lease != minted.fields["serial_number"]:
            raise IssuerRefused("a certificate is for the configured hosts, and its serial number is its lease")
        refuse_another(minted.fields, minted.expires_at, order.csr or "", names)

    async def revoke(self, *, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        """Put it on Vault's revocation list and end its token. False: only its expiry is its death.

        Raises `IssuerUnavailable`.
        """
        try:
            if lease is not None:
                # A role that stores no certificates has none to revoke; then there is only the expiry.
                with suppress(VaultRefused):
                    await self._vault.request("POST", f"{self._config.mount}/revoke", {"serial_number": lease})
            if handle is not None:
                await self._tokens.revoke(handle, None, now)
        except VaultFault as fault:
            _log.warning("vault_revocation_failed", jti=jti, kind=type(fault).__name__, said=fault.said)
            raise issuer_fault(fault) from None
        return False

    def _ordered(self, order: GrantOrder) -> tuple[str, Names]:
        """Role and names, as policy ordered them."""
        role, config = order.params.get("role"), self._config
        if not isinstance(role, str) or role not in config.roles:
            raise IssuerRefused(
                f"policy must name a role of issuer {self.name} in grant.params.role: {', '.join(config.roles)}"
            )
        if not order.params.keys() <= PARAMS:
            raise IssuerRefused(f"a certificate takes no other parameters than {', '.join(sorted(PARAMS))}")
        if order.csr is None:
            raise IssuerRefused(
                f"issuer {self.name} signs a key that the agent made: declare the tool with certificate=True "
                "(over HTTP: send csr)"
            )
        return role, Names.ordered(order.params)


def _ttl_s(order: GrantOrder) -> int:
    """What is asked of Vault (seconds): less than ordered by what a slow request or another clock may take."""
    left = (order.expires_at - order.issued_at) // 1000
    return max(1, left - min(SPARE_S, left // 4))


def _told(fault: VaultFault, doing: str, order: GrantOrder) -> IssuerUnavailable:
    """The fault as the port says it, after an operator was told Vault's own words."""
    _log.warning("vault_issuer_failed", doing=doing, jti=order.jti, kind=type(fault).__name__, said=fault.said)
    return issuer_fault(fault)
