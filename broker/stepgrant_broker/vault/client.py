"""The client that issuers, signers and commands share: requests under the broker's own session, or another token.

Rules:
* Without a token a request goes out under the broker's session. When that session turns out to be dead, it is sent once
  more under a new one: a 403 did nothing.
* With a token (a grant's own) nothing is tried again.
* `NO_TOKEN` is for the few paths that take none (seal status, logins).
"""

from __future__ import annotations

import time
from typing import Any, Final

from stepgrant_broker.vault.faults import VaultBad, VaultDenied
from stepgrant_broker.vault.login import Login
from stepgrant_broker.vault.wire import DEADLINE_S, Late, VaultToken, Wire

NO_TOKEN: Final = VaultToken("")


class Vault:
    """One Vault under one login. Open it with `start`, end it with `close`; it belongs to the loop that uses it."""

    def __init__(self, wire: Wire, login: Login) -> None:
        self.wire = wire
        self.login = login

    @property
    def healthy(self) -> bool:
        """True while the broker has a session with Vault."""
        return self.login.healthy

    def start(self) -> None:
        """Log in and stay so."""
        self.login.start()

    async def close(self) -> None:
        """Give the session back and close the connections."""
        await self.login.close()
        await self.wire.close()

    async def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        token: VaultToken | None = None,
        wrap_ttl_s: int | None = None,
        deadline_s: float = DEADLINE_S,
        late: Late | None = None,
    ) -> dict[str, Any]:
        """Send one request and return the answer's JSON object, `{}` for an empty one.

        Args:
            method: GET, LIST, POST, PUT or DELETE.
            path: below `/v1/`, without slash in front.
            body: JSON; of GET and LIST the query.
            token: instead of the broker's session; `NO_TOKEN` for none.
            wrap_ttl_s: ask for a wrapped answer that lives this many seconds.
            deadline_s: for all of it, a login included.
            late: told of an answer that came when nobody waited any more; only for requests with `token`.

        Raises:
            VaultDenied: 403.
            VaultMissing: 404, or a role that is not there.
            VaultBad: 400, or an answer that is none.
            VaultSealed: sealed or not initialised.
            VaultUnavailable: no usable answer; `maybe` says if it may have happened.
        """
        until = time.monotonic() + deadline_s
        if token is not None:
            used = None if token is NO_TOKEN else token
            return await self.wire.send(
                method, path, body, token=used, wrap_ttl_s=wrap_ttl_s, deadline_s=deadline_s, late=late
            )
        own = await self.login.token(deadline_s)
        try:
            return await self.wire.send(
                method, path, body, token=own, wrap_ttl_s=wrap_ttl_s, deadline_s=until - time.monotonic()
            )
        except VaultDenied:
            if not await self.login.lost(own):
                raise
        own = await self.login.token(max(0.0, until - time.monotonic()))
        left = until - time.monotonic()
        return await self.wire.send(method, path, body, token=own, wrap_ttl_s=wrap_ttl_s, deadline_s=left)


def data_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer's `data`. Raises `VaultBad`."""
    data = answer.get("data")
    if not isinstance(data, dict):
        raise VaultBad("Vault's answer has no 'data'")
    return data
