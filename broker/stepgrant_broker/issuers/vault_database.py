"""Issuer `vault-database`: a login of its own for each grant, made and dropped by Vault's database engine.

Rules (`architecture.md` §3, "an outside issuer's mint is a side effect"):
* `intend` makes an orphan token that can do one thing: read `<mount>/creds/<role>`. It cannot outlive the grant's TTL
  and the mint deadline, whatever happens here. Its accessor is the handle; the token stays in this process's memory
  until `mint`, at most for the mint deadline. It has no use limit: with one use left Vault takes the login back.
* `mint` reads the login with that token. What comes later than its deadline is remembered, so that it can be taken
  back, and is never released.
* `check` compares what came with what was ordered. Vault's `lease_duration` is the role's, not the token's: a login
  that Vault would keep longer than the grant is refused, although the token's end would take it along.
* `revoke` drops the login at once (`sync`), then the token. Revoking the token alone drops its logins in the
  background, and one that was just being made survives that; so without a lease id death is confirmed only when this
  process knows that nothing was made, or when the longest life that such a login can have is over. Nobody was given it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog

from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.grants import MINT_DEADLINE_MS
from stepgrant_broker.domain.ports import Minted, Revocation
from stepgrant_broker.issuers import grant_tokens
from stepgrant_broker.issuers.file import HOST, MOUNT, VAULT_NAME, Section
from stepgrant_broker.issuers.grant_tokens import GrantTokens, Seen
from stepgrant_broker.issuers.vault_roles import Role, probe, read_role
from stepgrant_broker.vault.client import data_of
from stepgrant_broker.vault.faults import VaultBad, VaultFault, issuer_fault

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import GrantOrder
    from stepgrant_broker.vault.client import Vault
    from stepgrant_broker.vault.wire import Answer

MAX_TTL_S: Final = 300
LATER_S: Final = 2
"""How much longer than the grant a lease may be: it begins a little later than the grant."""
ROLE_KEPT_S: Final = 60.0


@dataclass(frozen=True, slots=True, repr=False)
class LeasedLogin(Minted):
    """A login, with what Vault said of its lease."""

    lease_s: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseConfig:
    """One `[issuer.<name>]` of kind `vault-database`. `host`, `port` and `database` are what the agent connects to."""

    kind: ClassVar[str] = "vault-database"

    name: str
    mount: str
    roles: tuple[str, ...]
    max_ttl_s: int
    token_role: str
    host: str
    port: int | None
    database: str | None

    @classmethod
    def read(cls, section: Section) -> DatabaseConfig:
        """From the issuers file. Raises `SectionInvalid`."""
        return cls(
            name=section.name,
            mount=section.text("mount", MOUNT, default="database"),
            roles=section.names("roles"),
            max_ttl_s=section.number("max_ttl_s", 1, MAX_TTL_S, default=60),
            token_role=section.text("token_role", VAULT_NAME, default=grant_tokens.DEFAULT_ROLE),
            host=section.text("host", HOST),
            port=section.maybe_number("port", 1, 65535),
            database=section.maybe_text("database"),
        )

    def build(self, vault: Vault) -> VaultDatabaseIssuer:
        """The issuer itself."""
        return VaultDatabaseIssuer(self, vault)

    def vault_policies(self) -> Mapping[str, str]:
        """For each role one policy that may read its logins and nothing else."""
        return {
            grant_tokens.policy_name(self.name, role): f'path "{self.mount}/creds/{role}" {{\n'
            '  # The one thing that a per-grant token can do.\n  capabilities = ["read"]\n}\n'
            for role in self.roles
        }

    def broker_rules(self) -> Mapping[str, tuple[str, ...]]:
        """What the broker's own session must be allowed: path to capabilities."""
        roles = {f"{self.mount}/roles/{role}": ("read",) for role in self.roles}
        return {**grant_tokens.broker_rules(self.token_role), **roles}

    def leases(self) -> tuple[str, ...]:
        """Those of its roles."""
        return tuple(f"{self.mount}/creds/{role}/*" for role in self.roles)

    async def probe(self, vault: Vault) -> tuple[str, ...]:
        """What is wrong with its roles. Raises `VaultFault`."""
        return await probe(vault, self.mount, self.roles, self.max_ttl_s)

    @property
    def origin(self) -> str:
        """Where the login may be used."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def fixed_fields(self) -> dict[str, str]:
        """What goes with every login."""
        given = {"host": self.host, "port": self.port, "database": self.database}
        return {name: str(value) for name, value in given.items() if value is not None}


class VaultDatabaseIssuer:
    """Gives out logins of the configured roles; policy names one of them in `grant.params.role`."""

    revocation: Revocation = Revocation.CONFIRMED
    outside: bool = True
    tokens_of_ours: bool = False

    def __init__(self, config: DatabaseConfig, vault: Vault) -> None:
        self.name = config.name
        self.max_ttl_s = config.max_ttl_s
        self._config = config
        self._vault = vault
        self._tokens = GrantTokens(vault, config.name, config.token_role)
        self._roles: dict[str, tuple[float, Role]] = {}

    async def intend(self, order: GrantOrder) -> str | None:
        """Make the grant's own token; the handle names it. Raises `IssuerRefused`, `IssuerUnavailable`."""
        role = self._ordered_role(order)
        if not 0 < order.expires_at - order.issued_at <= self.max_ttl_s * 1000:
            raise IssuerRefused(f"logins of issuer {self.name} live at most {self.max_ttl_s} s")
        try:
            self._refuse_unfit(await self._known_role(role), order)
            return await self._tokens.make(order, role, longest_s=self.max_ttl_s)
        except VaultFault as fault:
            raise _told(fault, "intend", order) from None

    async def mint(self, order: GrantOrder, handle: str | None) -> Minted:
        """Read the login with the grant's own token. Raises `IssuerRefused`, `IssuerUnavailable`."""
        role = self._ordered_role(order)
        token = self._tokens.take(handle, order.jti)
        path = f"{self._config.mount}/creds/{role}"
        try:
            answer = await self._vault.request(
                "GET",
                path,
                token=token,
                deadline_s=MINT_DEADLINE_MS / 1000,
                late=lambda late: self._tokens.saw(handle, _seen(late)),
            )
        except VaultFault as fault:
            if not fault.maybe:
                self._tokens.saw(handle, Seen.NOTHING)
            raise _told(fault, "mint", order) from None
        self._tokens.saw(handle, _seen(answer))
        _log.info("vault_login_made", jti=order.jti, role=role, request_id=str(answer.get("request_id"))[:64])
        return self._login(order, answer)

    def _login(self, order: GrantOrder, answer: dict[str, Any]) -> LeasedLogin:
        try:
            data = data_of(answer)
        except VaultBad as bad:
            raise issuer_fault(bad) from None
        lease, life = answer.get("lease_id"), answer.get("lease_duration")
        username, password = data.get("username"), data.get("password")
        if not (isinstance(lease, str) and lease and isinstance(username, str) and isinstance(password, str)):
            raise IssuerRefused(f"{self._config.mount} did not answer with a login and its lease: is it a database?")
        seconds = life if isinstance(life, int) and not isinstance(life, bool) else 0
        return LeasedLogin(
            "login",
            {"username": username, "password": password, **self._config.fixed_fields()},
            # From when the grant was issued, which is before the lease began: never later than its real end.
            expires_at=min(order.expires_at, order.issued_at + seconds * 1000),
            hosts=(self._config.origin,),
            lease=lease,
            lease_s=seconds,
        )

    def check(self, order: GrantOrder, minted: Minted) -> None:
        """Refuse another role, a longer life, or another shape than ordered. Raises `IssuerRefused`."""
        role, config = self._ordered_role(order), self._config
        if not isinstance(minted, LeasedLogin) or minted.kind != "login":
            raise IssuerRefused("a login of Vault comes with its lease")
        named = re.fullmatch(r"(.+)/[^/]{1,256}", minted.lease or "")
        if named is None or named[1] != f"{config.mount}/creds/{role}":
            raise IssuerRefused(f"Vault answered with a lease of something else than role {role}")
        allowed = math.ceil((order.expires_at - order.issued_at) / 1000)
        if not 0 < minted.lease_s <= allowed + LATER_S:
            raise IssuerRefused(
                f"Vault would keep this login {minted.lease_s} s, the grant is for {allowed} s: set default_ttl and "
                f"max_ttl of {config.mount}/roles/{role} to at most {allowed}s, or let policy give a longer ttl"
            )
        given = dict(minted.fields)
        if not given.pop("username", "") or not given.pop("password", "") or given != config.fixed_fields():
            raise IssuerRefused("a login is a username, a password, and what the issuers file says of the database")
        if not order.issued_at < minted.expires_at <= order.expires_at or minted.hosts != (config.origin,):
            raise IssuerRefused("a login ends with its grant and is for its database only")

    async def revoke(self, *, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        """Drop the login and its token; True when both are provably gone. Raises `IssuerUnavailable`."""
        try:
            return await self._tokens.revoke(handle, lease, now)
        except VaultFault as fault:
            _log.warning("vault_revocation_failed", jti=jti, kind=type(fault).__name__, said=fault.said)
            raise issuer_fault(fault) from None

    async def _known_role(self, role: str) -> Role:
        """The role as Vault has it, asked again every minute. Raises `VaultFault`."""
        until, known = self._roles.get(role, (0.0, None))
        if known is None or time.monotonic() >= until:
            known = await read_role(self._vault, self._config.mount, role)
            if not known.findings(self.max_ttl_s):
                self._roles[role] = (time.monotonic() + ROLE_KEPT_S, known)
        return known

    def _refuse_unfit(self, role: Role, order: GrantOrder) -> None:
        for finding in role.findings(self.max_ttl_s):
            raise IssuerRefused(finding)
        allowed = math.ceil((order.expires_at - order.issued_at) / 1000)
        if role.life_s is None or role.life_s > allowed + LATER_S:
            raise IssuerRefused(
                f"logins of {role.path} live {role.life_s} s, the grant is for {allowed} s: set its default_ttl to at "
                f"most {allowed}s, or let policy give a longer ttl"
            )

    def _ordered_role(self, order: GrantOrder) -> str:
        role = order.params.get("role")
        if not isinstance(role, str) or role not in self._config.roles:
            raise IssuerRefused(
                f"policy must name a role of issuer {self.name} in grant.params.role: {', '.join(self._config.roles)}"
            )
        if order.params.keys() != {"role"}:
            raise IssuerRefused("a login takes no other parameters than its role")
        return role


_log = structlog.get_logger(__name__)


def _seen(answer: Answer) -> str | Seen:
    if isinstance(answer, VaultFault):
        return Seen.UNKNOWN if answer.maybe else Seen.NOTHING
    lease = answer.get("lease_id")
    return lease if isinstance(lease, str) and lease else Seen.UNKNOWN


def _told(fault: VaultFault, doing: str, order: GrantOrder) -> IssuerUnavailable:
    """The fault as the port says it, after an operator was told Vault's own words."""
    _log.warning("vault_issuer_failed", doing=doing, jti=order.jti, kind=type(fault).__name__, said=fault.said)
    return issuer_fault(fault)
