"""Spending grants at the broker, as an enrolled workload (`protocol.md` §1.6, §3).

Rules:

* One redemption has one id; a lost answer is asked for again under it, and the broker repeats its answer until
  `act_before`. Another server, id or proof gets `already_redeemed`.
* Out of reach is refused, whatever the grant is for.
* `act_before` is turned into this machine's clock from the moment before the request was sent, so that no difference
  between the clocks can make the time longer.
* A process that forks (gunicorn and the like) gets its own key and connections in each child.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from stepgrant import _exchange, _http
from stepgrant._dpop import DpopKey
from stepgrant._errors import AuthenticationFailed, BrokerError, BrokerUnavailable, ConfigurationError
from stepgrant._identity import Evidence
from stepgrant._problems import from_problem
from stepgrant._verification_errors import (
    AlreadyRedeemed,
    DigestMismatch,
    GrantExpired,
    GrantRevoked,
    GrantSuperseded,
    InvalidToken,
    VerificationError,
    VerificationUnavailable,
)
from stepgrant.canonical import JsonValue
from stepgrant.verify._verifier import Redeemed, Redemption

if TYPE_CHECKING:
    import httpx

_TRIES: Final = 4
_PAUSE_S: Final = 0.15
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_MAX_WINDOW_MS: Final = 60_000

_REFUSALS: Final[Mapping[str, tuple[type[VerificationError], str]]] = {
    "digest_mismatch": (DigestMismatch, "broker_says_other_action"),
    "unknown_grant": (InvalidToken, "unknown_grant"),
    "already_redeemed": (AlreadyRedeemed, "spent"),
    "grant_expired": (GrantExpired, "expired"),
    "grant_revoked": (GrantRevoked, "revoked"),
    "quarantined": (GrantRevoked, "quarantined"),
    "stale_epoch": (GrantSuperseded, "fenced"),
}


@dataclass(slots=True)
class _Session:
    """What one process holds towards the broker: its key, the token bound to it, and the newest nonce."""

    pid: int = field(default_factory=os.getpid)
    dpop: DpopKey = field(default_factory=DpopKey)
    token: _exchange.AccessToken | None = None
    nonce: str | None = None
    client: httpx.Client | None = None
    async_client: httpx.AsyncClient | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    async_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def usable_token(self, now: float) -> _exchange.AccessToken | None:
        return self.token if self.token is not None and self.token.usable(now) else None

    def take(self, exchanged: _exchange.Exchanged) -> _exchange.AccessToken:
        self.token = exchanged.token
        self.nonce = exchanged.nonce or self.nonce
        return exchanged.token


class BrokerRedeemer:
    """Redeems grants at the broker. One object serves all threads, or all tasks of one event loop.

    Args:
        base_url: the broker's public address: https, or http on loopback.
        workload: this server's enrolled key, or a `TokenFile`; its enrolment, or the broker's trust rule, lists the
            audiences that it serves.
        issuer: the broker's issuer, by default `base_url`.
        client: for sync use; by default one is kept. Of the environment it takes `SSL_CERT_FILE`, no proxies.
        async_client: for async use; likewise.
        timeout_s: of one request.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        base_url: str,
        workload: Evidence,
        *,
        issuer: str | None = None,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
        timeout_s: float = 2,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base_url = _http.safe_url(base_url).rstrip("/")
        self._workload = workload
        self._issuer = issuer
        self._client = client
        self._async_client = async_client
        self._timeout_s = timeout_s
        self._clock = clock
        self._session = _Session()

    def redeem_sync(self, redemption: Redemption) -> Redeemed:
        """As `Redeemer`."""
        session = self._own_session()
        client = self._client or session.client
        if client is None:
            import httpx  # noqa: PLC0415 - 0.1 s that only who redeems waits

            client = session.client = httpx.Client(verify=_http.authorities(), trust_env=False, timeout=self._timeout_s)
        for attempt in range(_TRIES):
            try:
                with session.lock:
                    token = session.usable_token(self._clock()) or session.take(
                        _exchange.exchange_sync(client, self._token_request(session), nonce=session.nonce)
                    )
                sent_at = self._clock()
                answer = _http.send(client, self._request(client, session, token, redemption))
                consent = self._read(session, answer, sent_at)
            except ConfigurationError as error:
                raise _out_of_reach(str(error)) from None
            except BrokerError as error:
                time.sleep(self._pause(error, attempt))
            else:
                if consent is not None:
                    return consent
        raise _out_of_reach("the broker gave no answer to a redemption")

    async def redeem(self, redemption: Redemption) -> Redeemed:
        """The async twin of `redeem_sync`."""
        session = self._own_session()
        client = self._async_client or session.async_client
        if client is None:
            import httpx  # noqa: PLC0415 - as above

            client = session.async_client = httpx.AsyncClient(
                verify=_http.authorities(), trust_env=False, timeout=self._timeout_s
            )
        for attempt in range(_TRIES):
            try:
                async with session.async_lock:
                    token = session.usable_token(self._clock()) or session.take(
                        await _exchange.exchange(client, self._token_request(session), nonce=session.nonce)
                    )
                sent_at = self._clock()
                answer = await _http.asend(client, self._request(client, session, token, redemption))
                consent = self._read(session, answer, sent_at)
            except ConfigurationError as error:
                raise _out_of_reach(str(error)) from None
            except BrokerError as error:
                await asyncio.sleep(self._pause(error, attempt))
            else:
                if consent is not None:
                    return consent
        raise _out_of_reach("the broker gave no answer to a redemption")

    def close(self) -> None:
        """Close the connections that sync use opened."""
        if self._session.client is not None:
            self._session.client.close()
            self._session.client = None

    async def aclose(self) -> None:
        """Close the connections that async use opened."""
        if self._session.async_client is not None:
            await self._session.async_client.aclose()
            self._session.async_client = None

    def _own_session(self) -> _Session:
        if self._session.pid != os.getpid():
            self._session = _Session()
        return self._session

    def _token_request(self, session: _Session) -> _exchange.TokenRequest:
        return _exchange.TokenRequest(self._base_url, self._workload, session.dpop, self._issuer)

    def _request(
        self,
        client: httpx.Client | httpx.AsyncClient,
        session: _Session,
        token: _exchange.AccessToken,
        redemption: Redemption,
    ) -> httpx.Request:
        url = f"{self._base_url}/v1/grants/{quote(redemption.jti, safe='')}/redeem"
        proof = session.dpop.proof("POST", url, token=token.value, nonce=session.nonce, now=self._clock())
        return client.build_request(
            "POST",
            url,
            json={
                "redemption_id": redemption.redemption_id,
                "args_digest": redemption.args_digest,
                "proof_jti": redemption.proof_jti,
            },
            headers={
                "authorization": f"DPoP {token.value}",
                "dpop": proof,
                "idempotency-key": redemption.redemption_id,
            },
        )

    def _read(self, session: _Session, answer: _http.Answer, sent_at: float) -> Redeemed | None:
        """The consent; None to ask again at once. Raises `BrokerError` for "not now", `VerificationError` for "no"."""
        session.nonce = answer.nonce or session.nonce
        members = answer.members()
        if answer.status == _OK:
            return _consent(members, sent_at)
        code = members.get("code")
        if answer.status == _UNAUTHORIZED and code == "use_dpop_nonce" and answer.nonce is not None:
            return None
        if answer.status == _UNAUTHORIZED and code == "invalid_token":
            session.token = None
            return None
        if isinstance(code, str) and code in _REFUSALS:
            kind, reason = _REFUSALS[code]
            raise kind("the broker refuses to redeem the grant", reason=reason)
        problem = from_problem(answer.status, members, retry_after=answer.retry_after)
        if isinstance(problem, BrokerUnavailable):
            raise problem
        raise _out_of_reach(f"the broker answered HTTP {answer.status}", answer.retry_after)

    @staticmethod
    def _pause(error: BrokerError, attempt: int) -> float:
        if isinstance(error, AuthenticationFailed):
            raise _out_of_reach(f"the broker does not accept this server's identity ({error.code})") from None
        if attempt == _TRIES - 1:
            raise _out_of_reach(str(error)) from None
        return _PAUSE_S * (attempt + 1)


def _consent(members: Mapping[str, JsonValue], sent_at: float) -> Redeemed:
    act_before, now = members.get("act_before"), members.get("now")
    if not isinstance(act_before, int) or not isinstance(now, int):
        raise _out_of_reach("the broker's consent has no times in it")
    left_ms = act_before - now
    if left_ms <= 0:
        raise GrantExpired("the time to act was over before the answer came", reason="too_late")
    return Redeemed(int(sent_at * 1000) + min(left_ms, _MAX_WINDOW_MS))


def _out_of_reach(what: str, retry_after: float | None = None) -> VerificationUnavailable:
    return VerificationUnavailable(what, reason="broker_unavailable", retry_after=retry_after)
