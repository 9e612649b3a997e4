"""Issuer `static`: a secret that people already have (an API key), given out under a grant, for its hosts only.

Rules, and what it honestly is:
* `revocation: none`. Who has seen the secret has it until people change it at its target; the grant's end is a rule for
  the SDK, not a wall. So only policy can choose it, by naming issuer and secret (`grant.params.secret`).
* Encrypted at rest, and bound to tenant and name: wrapped bytes that were moved to another row do not open.
* An agent cannot choose the secret, its header or its hosts: they are in policy and in what an operator set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stepgrant_broker.domain import aad
from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable, StepgrantFault
from stepgrant_broker.domain.ports import Minted, Revocation

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import GrantOrder, KeyWrap, SecretSource

MAX_TTL_S: Final = 300
FIELDS: Final = frozenset({"value", "header"})


class StaticIssuer:
    """Gives out the secret that policy names."""

    name: str = "static"
    revocation: Revocation = Revocation.NONE
    outside: bool = False
    max_ttl_s: int = MAX_TTL_S
    tokens_of_ours: bool = False

    def __init__(self, secrets: SecretSource, wrap: KeyWrap) -> None:
        self._secrets = secrets
        self._wrap = wrap

    async def intend(self, order: GrantOrder) -> str | None:
        """Nothing outside is prepared."""
        return None

    async def mint(self, order: GrantOrder, handle: str | None) -> Minted:
        """The secret with its header and hosts. Raises `IssuerRefused`, `IssuerUnavailable`."""
        name = _named(order)
        record = await self._secrets.secret(order.tenant, name)
        if record is None or record.removed_at is not None:
            raise IssuerRefused(f"there is no secret {name}; set it with `stepgrant secret set`")
        if (record.tenant, record.name) != (order.tenant, name) or not record.hosts:
            raise IssuerRefused(f"secret {name} came back as another one, or without hosts")
        try:
            value = self._wrap.unwrap(record.wrapped, aad.static_secret(order.tenant, name)).decode()
        except (StepgrantFault, UnicodeDecodeError):
            # The cause stays out: a decoding error shows the bytes that it stumbled over.
            raise IssuerUnavailable(f"secret {name} does not open with this broker's key; set it again") from None
        return Minted("static", {"value": value, "header": record.header}, order.expires_at, hosts=record.hosts)

    def check(self, order: GrantOrder, minted: Minted) -> None:
        """Refuse what lives longer, goes anywhere, or carries more than ordered. Raises `IssuerRefused`."""
        _named(order)
        if minted.kind != "static" or minted.fields.keys() != FIELDS or not all(minted.fields.values()):
            raise IssuerRefused("a static credential is a value and a header")
        if not minted.hosts:
            raise IssuerRefused("a static credential without hosts could be sent anywhere")
        longest = min(order.expires_at, order.issued_at + 1000 * self.max_ttl_s)
        if minted.expires_at > longest or minted.lease is not None:
            raise IssuerRefused("a static credential ends with its grant and has no lease")

    async def revoke(self, *, tenant: str, jti: str, handle: str | None, lease: str | None, now: int) -> bool:
        """False: only people can end it, at its target."""
        return False


def _named(order: GrantOrder) -> str:
    name = order.params.get("secret")
    if not isinstance(name, str) or not name:
        raise IssuerRefused("policy must name the secret: grant.params.secret")
    if order.params.keys() != {"secret"}:
        raise IssuerRefused("a static secret takes no other parameters than its name")
    return name
