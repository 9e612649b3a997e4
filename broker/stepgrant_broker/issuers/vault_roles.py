"""What a role of Vault's database engine must be like, so that a login of it can be called dead when Vault says so.

Rules (PostgreSQL; Vault 1.21 and OpenBao 2):
* `creation_statements` have `VALID UNTIL '{{expiration}}'`: if Vault is away when a login ends, PostgreSQL ends it.
* `revocation_statements` have `pg_terminate_backend`: dropping a role does not end its sessions, and neither does
  `VALID UNTIL`. Without it Vault confirms a revocation while somebody still works under that login.
* The life that Vault gives (`default_ttl`, capped by `max_ttl`; 0 is the mount's default, 32 days) must fit into what
  the issuers file allows: a database login takes no TTL from who asks for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from stepgrant_broker.vault.client import Vault, data_of
from stepgrant_broker.vault.faults import VaultMissing

VALID_UNTIL: Final = re.compile(r"\bVALID\s+UNTIL\s+'\{\{expiration\}\}'", re.IGNORECASE)
TERMINATE: Final = re.compile(r"\bpg_terminate_backend\s*\(", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Role:
    """A role as Vault has it. `life_s` is what a login of it lives; `None`: the mount's default."""

    path: str
    life_s: int | None
    creation: str
    revocation: str

    def findings(self, max_ttl_s: int) -> tuple[str, ...]:
        """What is wrong with it, each with its mending; empty when nothing is."""
        found = []
        if self.life_s is None or self.life_s > max_ttl_s:
            has = "the mount's default" if self.life_s is None else f"{self.life_s} s"
            found.append(f"logins of {self.path} live {has}: set its default_ttl and max_ttl to at most {max_ttl_s}s")
        if not VALID_UNTIL.search(self.creation):
            found.append(f"logins of {self.path} do not end by themselves: add VALID UNTIL '{{{{expiration}}}}' to its "
                         "creation_statements")  # fmt: skip
        if not TERMINATE.search(self.revocation):
            found.append(
                f"sessions of {self.path} survive their login: put SELECT pg_terminate_backend(pid) FROM "  # noqa: S608 - words
                "pg_stat_activity WHERE usename = '{{name}}' in front of its revocation_statements"
            )
        return tuple(found)


async def read_role(vault: Vault, mount: str, role: str) -> Role:
    """Ask Vault for the role's definition. Raises `VaultMissing` when there is none, and `VaultFault`."""
    path = f"{mount}/roles/{role}"
    try:
        data = data_of(await vault.request("GET", path))
    except VaultMissing as missing:
        raise VaultMissing(f"Vault has no role {role} at {mount}: make {path}", said=missing.said) from None
    return Role(path, _life(data), _statements(data, "creation"), _statements(data, "revocation"))


async def probe(vault: Vault, mount: str, roles: tuple[str, ...], max_ttl_s: int) -> tuple[str, ...]:
    """What is wrong with these roles, for `stepgrant doctor`. Raises `VaultFault` when Vault cannot be asked."""
    found: list[str] = []
    for role in roles:
        try:
            found += (await read_role(vault, mount, role)).findings(max_ttl_s)
        except VaultMissing as missing:
            found.append(missing.detail)
    return tuple(found)


def _life(data: dict[str, Any]) -> int | None:
    given = [data.get(name) for name in ("default_ttl", "max_ttl")]
    set_here = [one for one in given if isinstance(one, int) and one > 0]
    return min(set_here) if set_here else None


def _statements(data: dict[str, Any], which: str) -> str:
    value = data.get(f"{which}_statements")
    return "\n".join(str(one) for one in value) if isinstance(value, list) else str(value or "")
