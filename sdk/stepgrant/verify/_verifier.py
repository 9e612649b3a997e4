"""Verification of one grant at a resource server, sync and async over the same checks (`protocol.md` §3).

The order is the point: everything that needs no memory first, so that nobody without a true grant and its key can write
into a memory; then proof replay and epoch; then the use is spent, at the broker where the grant demands it. Only then
may the effect begin, and only until `act_before`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from stepgrant import _dpop
from stepgrant._errors import ConfigurationError
from stepgrant._jose import Jws
from stepgrant._keys import VerifyingKey
from stepgrant._verification_errors import (
    AlreadyRedeemed,
    GrantExpired,
    GrantSuperseded,
    InvalidProof,
    VerificationUnavailable,
)
from stepgrant.canonical import JsonValue, b64u
from stepgrant.verify import _checks
from stepgrant.verify._jwks import KeySource, StaticKeys
from stepgrant.verify._memory import Memory, ProcessMemory
from stepgrant.verify._types import Action, Presented, VerifiedGrant

PROOF_AGE_S: Final = 60
MAX_LEEWAY_S: Final = 60
DEFAULT_TENANT: Final = "default"
"""The tenant of a broker whose settings name none."""


@dataclass(frozen=True, slots=True)
class Redemption:
    """One spending of a grant, as the broker is told. The same `redemption_id` is a retry, another a second use."""

    jti: str
    redemption_id: str
    args_digest: str
    proof_jti: str


@dataclass(frozen=True, slots=True)
class Redeemed:
    """The broker's consent. `act_before` is in milliseconds of this machine's clock."""

    act_before: int


class Redeemer(Protocol):
    """Spends a grant's use at the broker; `BrokerRedeemer` is the real one."""

    def redeem_sync(self, redemption: Redemption) -> Redeemed:
        """Raises `VerificationError`; `VerificationUnavailable` if the broker cannot be asked."""
        ...

    async def redeem(self, redemption: Redemption) -> Redeemed:
        """The async twin."""
        ...


@dataclass(frozen=True, slots=True)
class _Checked:
    claims: Mapping[str, JsonValue]
    known: _checks.Claims
    detail: _checks.Detail
    exp: int
    proof: _dpop.Proof

    @property
    def redemption(self) -> Redemption:
        return Redemption(
            self.known.jti, "rdm_" + b64u(secrets.token_bytes(16)), self.detail.args_digest, self.proof.jti
        )


class GrantVerifier:
    """Verifies grants for one resource server. One object serves all threads and tasks of a process.

    Args:
        issuer: the broker's issuer, exactly as in its tokens.
        audience: this server's name, exactly as in the tokens for it.
        tenant: whose grants are taken, as the broker calls it (its setting `tenant`, or `tenant` in its trust file).
            Those of all others are refused, whatever policy says; a server of several tenants has a verifier for each.
        keys: where the broker's public keys come from: a `JwksSource`, `StaticKeys`, or a JWKS document.
        redeemer: spends uses at the broker. Without one, grants with `redeem: required` are refused.
        locations: the locations that are this server; by default only `audience`.
        leeway_s: how far the broker's clock and this one may differ.
        memory: of epochs, proofs, and uses of grants with `redeem: optional`; by default of this process.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: KeySource | Mapping[str, JsonValue],
        tenant: str = DEFAULT_TENANT,
        redeemer: Redeemer | None = None,
        locations: Iterable[str] | None = None,
        leeway_s: float = 5,
        memory: Memory | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not issuer or not audience or not tenant or not 0 <= leeway_s <= MAX_LEEWAY_S:
            raise ConfigurationError(f"issuer, audience and tenant must be given, leeway_s is 0 to {MAX_LEEWAY_S}")
        self.issuer: Final = issuer
        self.audience: Final = audience
        self.tenant: Final = tenant
        self._keys: Final = StaticKeys(keys) if isinstance(keys, Mapping) else keys
        self._redeemer: Final = redeemer
        self._locations: Final = frozenset(locations or (audience,))
        self._leeway_s: Final = leeway_s
        self._memory: Final = memory or ProcessMemory()
        self._clock: Final = clock

    def verify_sync(self, presented: Presented, action: Action) -> VerifiedGrant:
        """Check that `presented` carries a live grant for exactly `action`, and spend its use.

        Raises `VerificationError`: nothing may be done.
        """
        jws = _checks.parse(presented.token)
        key = self._keys.find_sync(_checks.key_id(jws))
        checked = self._check(jws, key, presented, action)
        redeemer = self._needed_redeemer(checked)
        if redeemer is None:
            return self._accept(checked, None)
        return self._accept(checked, redeemer.redeem_sync(checked.redemption))

    async def verify(self, presented: Presented, action: Action) -> VerifiedGrant:
        """The async twin of `verify_sync`."""
        jws = _checks.parse(presented.token)
        key = await self._keys.find(_checks.key_id(jws))
        checked = self._check(jws, key, presented, action)
        redeemer = self._needed_redeemer(checked)
        if redeemer is None:
            return self._accept(checked, None)
        return self._accept(checked, await redeemer.redeem(checked.redemption))

    def _check(self, jws: Jws, key: VerifyingKey, presented: Presented, action: Action) -> _Checked:
        now_s = self._clock()
        raw, known, detail, exp = _checks.verify(
            jws,
            key,
            issuer=self.issuer,
            tenant=self.tenant,
            audience=self.audience,
            now_s=now_s,
            leeway_s=self._leeway_s,
        )
        proof = _dpop.verify_proof(
            presented.proof,
            method=presented.method,
            url=presented.url,
            token=presented.token,
            now_s=now_s,
            max_age_s=PROOF_AGE_S,
            future_s=self._leeway_s,
        )
        if proof.jkt != known.cnf.jkt:
            raise InvalidProof("the proof is by another key than the token is bound to", reason="wrong_key")
        _checks.check_action(detail, action, self._locations)
        # From here on the sender is the holder of a true grant for this action: now memories may be written.
        if not self._memory.observe_epoch(detail.run_id, detail.epoch, now_s=now_s):
            raise GrantSuperseded(
                "a newer epoch of this run was seen; its older holder is fenced", reason="older_epoch"
            )
        forget_at_s = proof.iat + PROOF_AGE_S + self._leeway_s
        spent = f"proof:{proof.jkt}:{proof.jti}"
        if not self._memory.spend(spent, by=known.client_id, limit=1, forget_at_s=forget_at_s, now_s=now_s):
            raise InvalidProof("this proof was used before", reason="replayed")
        return _Checked(raw, known, detail, exp, proof)

    def _needed_redeemer(self, checked: _Checked) -> Redeemer | None:
        """The redeemer, if the grant demands it; else the use is spent here."""
        if checked.detail.redeem == "required":
            if self._redeemer is None:
                raise VerificationUnavailable("the grant must be redeemed, no redeemer is set up", reason="no_redeemer")
            return self._redeemer
        key, by, limit = f"grant:{checked.known.jti}", checked.known.client_id, checked.detail.max_uses
        forget_at_s = checked.exp + self._leeway_s
        if not self._memory.spend(key, by=by, limit=limit, forget_at_s=forget_at_s, now_s=self._clock()):
            raise AlreadyRedeemed("this grant's uses are spent", reason="spent_here")
        return None

    def _accept(self, checked: _Checked, redeemed: Redeemed | None) -> VerifiedGrant:
        # Without redemption no leeway after `exp`: one leeway after it, by its own clock, the broker counts it as dead.
        act_before = checked.exp * 1000 if redeemed is None else redeemed.act_before
        if self._clock() * 1000 >= act_before:
            raise GrantExpired("the time to act is over; nothing may begin now", reason="too_late")
        detail, known = checked.detail, checked.known
        return VerifiedGrant(
            run_id=detail.run_id,
            step=detail.step,
            attempt=detail.attempt,
            epoch=detail.epoch,
            jti=known.jti,
            tool=detail.actions[0],
            resource=detail.identifier,
            effect=detail.effect,
            idempotency_key=detail.idempotency_key,
            act_before=act_before,
            subject=known.sub,
            redeemed=redeemed is not None,
            claims=checked.claims,
        )
