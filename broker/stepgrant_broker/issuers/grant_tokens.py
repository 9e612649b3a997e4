"""Per-grant tokens of Vault: made before the intent is recorded, used once, taken back with all that hangs on them.

Rules:
* Orphan (it outlives no parent and no parent's end kills it early), not renewable, without the `default` policy, with
  an explicit maximum: the grant's TTL and the mint deadline. `meta` says which grant, also in Vault's audit log.
* What Vault made is compared with what was asked for before it is used: a token role can silently give more.
* The handle is `<accessor>.<until>`: `until` (milliseconds) is when even a login that nobody knows of is over. It comes
  from the store's clock and is compared with it: a host whose clock runs ahead calls nothing dead that lives.
* Held tokens are bounded and dropped after the mint deadline. A token that was never taken has made nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from stepgrant_broker.domain.errors import IssuerRefused, IssuerUnavailable
from stepgrant_broker.domain.grants import LATE_MINT_MS, MINT_DEADLINE_MS
from stepgrant_broker.vault.faults import VaultBad, VaultFault
from stepgrant_broker.vault.wire import VaultToken

if TYPE_CHECKING:
    from stepgrant_broker.domain.ports import GrantOrder
    from stepgrant_broker.vault.client import Vault

DEFAULT_ROLE: Final = "stepgrant"
POLICY_PREFIX: Final = "stepgrant."
HELD_MAX: Final = 1024
KNOWN_MAX: Final = 4096
FASTER: Final = "token not found"


class Seen(Enum):
    """What this process knows of a handle's mint besides a lease id."""

    NOTHING = "nothing was made, or it is gone"
    UNKNOWN = "something may have been made"


@dataclass(slots=True)
class _Held:
    jti: str
    token: VaultToken
    timer: asyncio.TimerHandle


def policy_name(issuer: str, role: str) -> str:
    """The policy of an issuer's role. A point ends the issuer's name, which has none, so no two share a policy."""
    return f"{POLICY_PREFIX}{issuer}.{role}".lower()


def token_rules(token_role: str) -> Mapping[str, tuple[str, ...]]:
    """What the broker's own session must be allowed for per-grant tokens: path to capabilities."""
    return {f"auth/token/create/{token_role}": ("update",), "auth/token/revoke-accessor": ("update",)}


def broker_rules(token_role: str) -> Mapping[str, tuple[str, ...]]:
    """As `token_rules`, and for the leases that such tokens make."""
    return {**token_rules(token_role), "sys/leases/revoke": ("update",), "sys/leases/lookup": ("update",)}


class GrantTokens:
    """Makes, holds and revokes the per-grant tokens of one issuer."""

    def __init__(self, vault: Vault, issuer: str, token_role: str) -> None:
        self._vault = vault
        self._issuer = issuer
        self._token_role = token_role
        self._held: dict[str, _Held] = {}
        self._known: dict[str, str | Seen] = {}

    async def make(self, order: GrantOrder, role: str, *, longest_s: int) -> str:
        """Make a token that may use `role`; its handle. `longest_s`: the longest life of what it can make.

        Raises `IssuerRefused`, `IssuerUnavailable`, `VaultFault`.
        """
        if len(self._held) >= HELD_MAX:
            raise IssuerUnavailable(f"{HELD_MAX} grants wait for Vault; try again", retry_after_ms=1000)
        life_s = math.ceil((order.expires_at - order.issued_at + MINT_DEADLINE_MS) / 1000)
        token, accessor = await self._create(order, role, life_s=life_s, uses=0)
        handle = f"{accessor}.{order.issued_at + MINT_DEADLINE_MS + LATE_MINT_MS + 1000 * longest_s}"
        self._hold(handle, order.jti, token)
        return handle

    async def read_once(self, order: GrantOrder, role: str, path: str, query: dict[str, Any]) -> dict[str, Any]:
        """Read what has no lease with a token that can read it once and nothing else. Raises as `make`.

        With one use left, Vault takes a lease back as it gives it. Reading, also in vain, ends the token; one that was
        never used is over after the mint deadline.
        """
        token, _ = await self._create(order, role, life_s=MINT_DEADLINE_MS // 1000, uses=1)
        return await self._vault.request("GET", path, query, token=token)

    async def _create(self, order: GrantOrder, role: str, *, life_s: int, uses: int) -> tuple[VaultToken, str]:
        """A token of exactly this shape, and its accessor."""
        policy = policy_name(self._issuer, role)
        body = {
            "policies": [policy],
            "no_default_policy": True,
            "renewable": False,
            "ttl": f"{life_s}s",
            "explicit_max_ttl": f"{life_s}s",
            "num_uses": uses,
            "type": "service",
            "display_name": "stepgrant",
            "meta": {"stepgrant": order.tenant, "run": order.run, "step": order.step, "jti": order.jti},
        }
        answer = await self._vault.request("POST", f"auth/token/create/{self._token_role}", body)
        auth = answer.get("auth")
        token, accessor = _token_of(auth)
        wrong = _difference(auth, policy, life_s, uses) or _missing_policy(answer, policy)
        if wrong is not None:
            await self._drop(accessor)
            raise IssuerRefused(f"token role {self._token_role}: {wrong}; run `stepgrant vault setup`")
        return token, accessor

    def take(self, handle: str | None, jti: str) -> VaultToken:
        """The token of this grant, out of the memory for good. Raises `IssuerUnavailable`."""
        held = self._held.get(handle or "")
        if held is None or held.jti != jti:
            raise IssuerUnavailable("the token of this grant is gone (too late, or another process made it)")
        del self._held[handle or ""]
        held.timer.cancel()
        self.saw(handle, Seen.UNKNOWN)
        return held.token

    def saw(self, handle: str | None, what: str | Seen) -> None:
        """Remember what became of the handle's mint: its lease id, or what is known without one."""
        if handle is not None:
            self._known.pop(handle, None)
            self._known[handle] = what
            while len(self._known) > KNOWN_MAX:
                # The oldest; without it, confirmation takes until the handle's `until`.
                del self._known[next(iter(self._known))]

    async def revoke(self, handle: str | None, lease: str | None, now: int) -> bool:
        """Revoke lease (at once) and token. True when nothing of it can live at `now` (ms). Raises `VaultFault`."""
        held = self._held.pop(handle or "", None)
        if held is not None:
            held.timer.cancel()
            self.saw(handle, Seen.NOTHING)
        known = self._known.get(handle or "", Seen.UNKNOWN)
        lease = lease or (known if isinstance(known, str) else None)
        failed = await self._revoke_lease(lease) if lease is not None else None
        accessor, until = _parts(handle)
        if accessor is not None:
            # Also when the lease stays: without its token Vault goes on trying by itself.
            await self._drop(accessor)
        if failed is not None:
            raise failed
        over = lease is not None or handle is None or known is Seen.NOTHING or now > until
        if over:
            self.saw(handle, Seen.NOTHING)
        return over

    async def _revoke_lease(self, lease: str) -> VaultFault | None:
        try:
            await self._vault.request("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})
        except VaultFault as fault:
            return None if isinstance(fault, VaultBad) and await self._is_unknown(lease) else fault
        return None

    async def _is_unknown(self, lease: str) -> bool:
        """True when Vault says that there is no such lease: it was revoked between."""
        try:
            await self._vault.request("POST", "sys/leases/lookup", {"lease_id": lease})
        except VaultBad as bad:
            return "invalid lease" in bad.said
        except VaultFault:
            return False
        return False

    async def _drop(self, accessor: str) -> None:
        try:
            # Vault answers 200 with a warning when there is no such token (any more).
            await self._vault.request("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        except VaultBad as bad:
            # It was there when Vault looked, and somebody else (the sweeper, another replica) was a moment faster.
            if FASTER not in bad.said:
                raise

    def _hold(self, handle: str, jti: str, token: VaultToken) -> None:
        timer = asyncio.get_running_loop().call_later(MINT_DEADLINE_MS / 1000, self._expire, handle)
        self._held[handle] = _Held(jti, token, timer)

    def _expire(self, handle: str) -> None:
        if self._held.pop(handle, None) is not None:
            self.saw(handle, Seen.NOTHING)


def accessor_of(handle: str) -> str:
    """The accessor that a handle names."""
    return handle.rpartition(".")[0]


def _parts(handle: str | None) -> tuple[str | None, float]:
    if handle is None:
        return None, 0.0
    accessor, _, until = handle.rpartition(".")
    # A handle that is not ours proves nothing by time.
    return (accessor, float(until)) if accessor and until.isdigit() else (handle, math.inf)


def _token_of(auth: object) -> tuple[VaultToken, str]:
    if isinstance(auth, dict):
        token, accessor = auth.get("client_token"), auth.get("accessor")
        if isinstance(token, str) and token and isinstance(accessor, str) and accessor:
            return VaultToken(token), accessor
    raise VaultBad("Vault made no token with an accessor: the token role must be of type service", maybe=True)


def _difference(auth: Any, policy: str, life_s: int, uses: int) -> str | None:  # noqa: ANN401 - JSON
    """What of the token is not as asked; `None` when nothing is."""
    if auth.get("policies") != [policy]:
        return f"it gives other policies than {policy} alone (allowed_policies_glob, token_no_default_policy)"
    if auth.get("orphan") is not True:
        return "its tokens are no orphans (orphan=true)"
    if auth.get("renewable") is not False:
        return "its tokens are renewable (renewable=false)"
    life = auth.get("lease_duration")
    if not isinstance(life, int) or not 0 < life <= life_s:
        return f"its tokens live longer than the {life_s} s that were asked for (token_period, token_explicit_max_ttl)"
    if (auth.get("num_uses") or 0) != uses:
        return "its tokens have another use limit than asked for (token_num_uses=0)"
    return None


def _missing_policy(answer: dict[str, Any], policy: str) -> str | None:
    warnings = answer.get("warnings")
    said = " ".join(str(one) for one in warnings) if isinstance(warnings, list) else ""
    return f"policy {policy} does not exist" if "does not exist" in said else None
