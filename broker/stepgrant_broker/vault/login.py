"""The broker's own session with Vault: logged in once, renewed at two thirds of its life, and again when it is lost.

Rules:
* Single flight: whoever needs a session while there is none waits for the one login, and at most for its own deadline.
  After a login that failed nobody waits: until the next attempt every call is told at once why there is no session.
* A live session serves calls while it is renewed; nobody waits for a renewal.
* Attempts back off: to a second when Vault cannot be reached (it must serve soon after it is back), to half a minute
  when Vault refuses the login (no new attempt makes a wrong secret id right).
* 403 alone does not end a session: a policy may just not allow the call. Only a token that may not look itself up is
  given up, and at most one login a second follows from that.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Final

import structlog

from stepgrant_broker.vault.faults import VaultDenied, VaultFault, VaultRefused, VaultUnavailable
from stepgrant_broker.vault.methods import Method, Session, session_of
from stepgrant_broker.vault.wire import DEADLINE_S, VaultToken, Wire

RENEW_AT: Final = 2 / 3
SPARE_S: Final = 2.0
LOOK_S: Final = 1.0
FIRST_WAIT_S: Final = 0.1
UNREACHED_WAIT_S: Final = 1.0
REFUSED_WAIT_S: Final = 30.0
BETWEEN_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Login:
    """Keeps a session by one method. `start` once the loop runs; `close` gives the session back."""

    def __init__(self, wire: Wire, method: Method) -> None:
        self._wire = wire
        self._method = method
        self._session: Session | None = None
        self._ends_at = 0.0
        self._renew_at = 0.0
        self._began_at = float("-inf")
        self._running: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._failed: VaultFault | None = None
        self._failures = 0
        self._next_at = 0.0
        self.logins = 0
        """Logins that worked, for metrics."""

    @property
    def healthy(self) -> bool:
        """True while there is a session that has not ended."""
        return self._session is not None and time.monotonic() < self._ends_at

    def start(self) -> None:
        """Log in and keep the session from now on."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="stepgrant-vault-login")

    async def close(self) -> None:
        """End, and revoke the session if it came from a login of ours."""
        for task in (self._keeper, self._running):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._keeper = self._running = None
        session, self._session = self._session, None
        if session is not None and session.ours and time.monotonic() < self._ends_at:
            with suppress(VaultFault):
                await self._wire.send("POST", "auth/token/revoke-self", {}, token=session.token, deadline_s=SPARE_S)

    async def token(self, deadline_s: float = DEADLINE_S) -> VaultToken:
        """The token of now. Raises `VaultFault` when there is none and none came in time."""
        if self._session is None or time.monotonic() >= self._ends_at:
            await self._begin(deadline_s)
        if self._session is None:
            raise VaultUnavailable("there is no session with Vault")
        return self._session.token

    async def lost(self, token: VaultToken) -> bool:
        """After a 403 with `token`: True when another attempt with `token()` makes sense."""
        if self._session is None or self._session.token is not token:
            return True
        if time.monotonic() - self._began_at < BETWEEN_S:
            return False
        try:
            await self._wire.send("GET", "auth/token/lookup-self", token=token)
        except VaultDenied:
            self._give_up(token)
            return True
        except VaultFault:
            return False
        return False

    def _give_up(self, token: VaultToken) -> None:
        if self._session is not None and self._session.token is token:
            _log.warning("vault_session_lost")
            self._session = None

    async def _begin(self, deadline_s: float) -> None:
        if self._running is None or self._running.done():
            if self._failed is not None and time.monotonic() < self._next_at:
                raise type(self._failed)(self._failed.detail, said=self._failed.said)
            self._running = asyncio.create_task(self._login(), name="stepgrant-vault-login-once")
        running = self._running
        done, _ = await asyncio.wait({running}, timeout=deadline_s)
        if not done:
            raise VaultUnavailable(f"the login to Vault took longer than {deadline_s:g} s")
        if not self.healthy and self._failed is not None:
            raise type(self._failed)(self._failed.detail, said=self._failed.said)

    async def _login(self) -> None:
        """One attempt; what came of it is in the fields, so that every waiter reads the same."""
        before = time.monotonic()
        try:
            session = await self._method.login(self._wire)
        except VaultFault as fault:
            self._missed(fault)
        else:
            self._accept(session, before)
            self.logins += 1
            _log.info("vault_logged_in", life_s=session.life_s, renewable=session.renewable)

    def _accept(self, session: Session, before: float) -> None:
        self._session, self._began_at = session, before
        # A little less than Vault says, so that a request does not arrive with a token that just ended.
        self._ends_at = (
            float("inf") if session.life_s is None else before + session.life_s - min(SPARE_S, session.life_s / 10)
        )
        self._renew_at = float("inf") if session.life_s is None else before + session.life_s * RENEW_AT
        self._failed, self._failures, self._next_at = None, 0, 0.0

    def _missed(self, fault: VaultFault) -> None:
        most = REFUSED_WAIT_S if isinstance(fault, VaultRefused) else UNREACHED_WAIT_S
        wait = min(FIRST_WAIT_S * 2**self._failures, most)
        # Replicas that lost Vault together must not come back together.
        wait *= 0.5 + random.random() / 2  # noqa: S311 - spreads attempts, protects nothing
        self._failures = min(self._failures + 1, 20)
        self._failed, self._next_at = fault, time.monotonic() + wait
        _log.warning("vault_login_failed", kind=type(fault).__name__, why=fault.detail, said=fault.said)

    async def _keep(self) -> None:
        while True:
            try:
                await self._look_after()
            except VaultFault:
                # Told already, by the attempt itself.
                self._next_at = max(self._next_at, time.monotonic() + FIRST_WAIT_S)
            except Exception as error:  # noqa: BLE001 - a bug in one round must not end all later ones
                self._next_at = time.monotonic() + BETWEEN_S
                _log.error("vault_login_broke", kind=type(error).__name__)
            now = time.monotonic()
            due = self._renew_at if self.healthy else self._next_at
            await asyncio.sleep(min(LOOK_S, max(0.05, max(due, self._next_at) - now)))

    async def _look_after(self) -> None:
        changed = self._method.changed()
        if changed or not self.healthy:
            await self._again(at_once=changed)
        elif self._session is not None and time.monotonic() >= max(self._renew_at, self._next_at):
            await self._renew(self._session)

    async def _again(self, *, at_once: bool) -> None:
        if at_once:
            self._next_at = 0.0
        if time.monotonic() >= self._next_at:
            await self._begin(DEADLINE_S)

    async def _renew(self, session: Session) -> None:
        """Renew; a session that cannot be renewed any longer is followed by a new login while it still serves."""
        before = time.monotonic()
        if session.renewable:
            try:
                renewed = session_of(await self._wire.send("POST", "auth/token/renew-self", {}, token=session.token))
            except VaultRefused as refused:
                _log.warning("vault_session_not_renewed", said=refused.said)
            except VaultFault as fault:
                self._missed(fault)
                return
            else:
                # Near its maximum a session gets less each time: then a new one is better than ever shorter ones.
                enough = renewed.life_s is None or 2 * renewed.life_s > (session.life_s or 0)
                if enough and self._session is session:
                    self._accept(Session(session.token, renewed.life_s, renewed.renewable, session.ours), before)
                    return
        await self._begin(DEADLINE_S)
