"""An issuer outside, in memory: what a test can break there no real one can be made to show at the right moment.

It passes the conformance suite of its port. It remembers what lives at it, so that a test can count what was left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from fakes.hand import Hand, allow
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.ports import GrantOrder, Minted, Revocation
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import Grant


@dataclass
class OutsideIssuer:
    """Mints logins. `up`: it answers. `confirms`: revoking says dead. `hooks`: run at `intend`, `mint`, `revoke`."""

    name: str = "outside"
    revocation: Revocation = Revocation.CONFIRMED
    outside: bool = True
    max_ttl_s: int = 300
    tokens_of_ours: bool = False
    up: bool = True
    confirms: bool = True
    longer_ms: int = 0
    hangs: bool = False
    tokens: dict[str, str] = field(default_factory=dict)
    alive: dict[str, str] = field(default_factory=dict)
    minted: list[str] = field(default_factory=list)
    revoked: list[tuple[str | None, str | None]] = field(default_factory=list)
    hooks: dict[str, Callable[[], object]] = field(default_factory=dict)
    numbers: count[int] = field(default_factory=lambda: count(1))

    async def intend(self, order: GrantOrder) -> str | None:
        """A token for one mint; its handle."""
        self._meet("intend")
        handle = f"handle-{next(self.numbers)}"
        self.tokens[handle] = order.jti
        return handle

    async def mint(self, order: GrantOrder, handle: str | None) -> Minted:
        """A login under the handle. Raises `IssuerUnavailable`, `IssuerRefused`."""
        if self.hangs:
            await asyncio.sleep(3600)
        if order.expires_at - order.issued_at > 1000 * self.max_ttl_s:
            raise IssuerRefused("the grant is longer than this issuer's maximum")
        if self.tokens.pop(handle or "", None) != order.jti:
            raise IssuerRefused("the handle is not one of this order, or was revoked")
        lease = f"lease-{next(self.numbers)}"
        self.alive[lease] = handle or ""
        self.minted.append(order.jti)
        self._meet("mint")
        fields = {"username": f"v-{lease}", "password": f"secret-{lease}"}
        return Minted("login", fields, order.expires_at + self.longer_ms, ("db.example",), lease)

    def check(self, order: GrantOrder, minted: Minted) -> None:
        """Refuse what is not exactly what was ordered. Raises `IssuerRefused`."""
        if minted.expires_at > min(order.expires_at, order.issued_at + 1000 * self.max_ttl_s):
            raise IssuerRefused("the login lives longer than ordered")
        if minted.fields.keys() != {"username", "password"} or not all(minted.fields.values()):
            raise IssuerRefused("a login is a name and a password")
        if not minted.hosts or minted.lease is None:
            raise IssuerRefused("a login has hosts and a lease")

    async def revoke(self, *, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        """End lease and token. Raises `IssuerUnavailable`."""
        self._meet("revoke")
        self.revoked.append((handle, lease))
        self.tokens.pop(handle or "", None)
        for known in [one for one, of in self.alive.items() if one == lease or of == handle]:
            del self.alive[known]
        return self.confirms and self.revocation is Revocation.CONFIRMED

    def _meet(self, where: str) -> None:
        if where in self.hooks:
            self.hooks[where]()
        if not self.up:
            raise IssuerUnavailable("the issuer does not answer")


LOGIN: Final = allow(issuer="outside")
"""A decision that gives a login of this issuer."""


async def opened(broker: Hand) -> str:
    """A run's id."""
    return str((await broker.open())["run"])


async def grants(broker: Hand, run: str) -> list[Grant]:
    """All grants of a run, the oldest first."""
    page = await broker.ports.reads.grants("acme", Page(100), run=run)
    return sorted(page.rows, key=lambda grant: grant.jti)


async def payloads_behind(broker: Hand, grant: Grant) -> list[str]:
    """What rests of a grant's handle and lease."""
    names = [c for c in (grant.handle_c, grant.lease_c) if c is not None]
    return sorted(await broker.ports.reads.payloads("acme", grant.run, names))
