"""One authenticated call to the broker, as a flow: token, proof, nonce, repetition, errors.

Rules:
* Every try has a fresh proof; a repeated try has the same Idempotency-Key (RFC 9449 §11.1 takes each proof once).
* Without an answer, and on 429 and 5xx, a call is repeated with growing, jittered pauses until `Timeouts.broker` is
  over; `Retry-After` is honoured. Then `BrokerUnavailable`. Every other refusal is raised at once as what it is.
* A connection that the broker had closed while it waited costs one immediate try and no pause.
* Opening and resuming need a token exchange of a moment ago; all else one that has not run out.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final
from urllib.parse import urlencode

from stepgrant import _clock, _failpoints
from stepgrant._calls import Call
from stepgrant._client import Address, Unreachable
from stepgrant._dpop import DpopKey
from stepgrant._errors import BrokerError, BrokerUnavailable, StepgrantError
from stepgrant._exchange import AccessToken, TokenRequest
from stepgrant._flows import Exchanged, Flow, Interrupted, Send, Sleep
from stepgrant._http import Answer
from stepgrant._http1 import Request
from stepgrant._identity import Evidence
from stepgrant._outcomes import Unreadable, read
from stepgrant._problems import from_problem
from stepgrant._timeouts import Patience, Timeouts
from stepgrant._verification_errors import InvalidToken, NonceRequired

_log = logging.getLogger("stepgrant")
_FRESH_S: Final = 30.0
_LAST_MOMENT_S: Final = 2.0
_AUTH_TRIES: Final = 2
_OK: Final = 200
_REFUSED: Final = 300
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_UNFOLDED: Final = (b"accept-encoding", b"identity")
NOBODY: Final = "no answer from {} ({}); does the broker run there (url= or STEPGRANT_URL)?"
_JSON: Final = (b"content-type", b"application/json")


class Caller:
    """A holder's way to the broker. Used by several threads at once: the worst race costs one more exchange."""

    def __init__(self, address: Address, workload: Evidence, key: DpopKey, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self.key = key
        self._address = address
        self._tokens = TokenRequest(address.base, workload, key)
        self._token: AccessToken | None = None
        self._exchanged_at = 0.0
        self._nonce: str | None = None

    def call(
        self,
        call: Call,
        kind: Any,  # noqa: ANN401  # as `read`
        *,
        patience: Patience | None = None,
        fresh: bool = False,
        again: bool = False,
    ) -> Flow[Any]:
        """The answer, read as `kind`.

        Args:
            call: what to do; the same `Call` given again is a transport retry of it.
            kind: one of `_outcomes`.
            patience: how long to try; `Timeouts.broker` by default.
            fresh: with a token exchange of a moment ago.
            again: an earlier try of this call may have lost its reply.

        Raises:
            BrokerUnavailable: nobody answered in time.
            StepgrantError: what the broker's problem document stands for.
        """
        patience = patience or Patience(self.timeouts.broker)
        tries = Tries(call.what, patience, self._address.base, level=logging.WARNING if call.told else logging.DEBUG)
        while True:
            token = yield from self._usable_token(patience, tries, fresh=fresh)
            request = self._request(call, token, patience, again=again)
            patience.sent_at = time.monotonic()
            if _failpoints.on is not None:
                _failpoints.hit("sdk.before_send")
            exchanged: Exchanged = yield Send(request, must=call.outcome)
            if _failpoints.on is not None and _failpoints.lost():
                exchanged = Unreachable("the reply was lost")
            if not isinstance(exchanged, Answer):
                again = True
                yield from tries.unanswered(exchanged)
                continue
            self._nonce = exchanged.nonce or self._nonce
            if _OK <= exchanged.status < _REFUSED:
                try:
                    return read(exchanged, kind)
                except Unreadable as error:
                    again = True
                    yield from tries.refused(_unexpected(exchanged, str(error)))
                    continue
            problem = problem_of(exchanged)
            if isinstance(problem, InvalidToken):
                self._token = None
            again = again or exchanged.status >= _SERVER_ERROR
            yield from tries.refused(problem)

    def _usable_token(self, patience: Patience, tries: Tries, *, fresh: bool) -> Flow[AccessToken]:
        token = self._token
        young = not fresh or time.monotonic() - self._exchanged_at < _FRESH_S
        if token is not None and young and token.usable(_clock.now()):
            return token
        return (yield from self._exchange(patience, tries.of("the token exchange")))

    def _exchange(self, patience: Patience, tries: Tries) -> Flow[AccessToken]:
        followed = False
        while True:
            now, asked_at = _clock.now(), time.monotonic()
            proven = self._tokens.headers(self._nonce, now).items()
            headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in proven]
            headers += [_UNFOLDED, (b"content-type", b"application/x-www-form-urlencoded")]
            body = urlencode(self._tokens.form(time.time())).encode("ascii")
            target = (self._address.path + "/oauth/token").encode("ascii")
            exchanged: Exchanged = yield Send(Request(b"POST", target, headers, body, self._timeout(patience)))
            if not isinstance(exchanged, Answer):
                yield from tries.unanswered(exchanged)
                continue
            try:
                done = self._tokens.read(exchanged, now, last=followed)
            except BrokerError as error:
                yield from tries.refused(error)
                continue
            self._nonce = exchanged.nonce or self._nonce
            if done is None:
                followed = True
                continue
            self._token, self._exchanged_at = done.token, asked_at
            return done.token

    def _request(self, call: Call, token: AccessToken, patience: Patience, *, again: bool) -> Request:
        url = self._address.base + call.path
        proof = self.key.proof(call.method, url, token=token.value, nonce=self._nonce, now=_clock.now())
        headers = [
            (b"accept", b"application/json"),
            _UNFOLDED,
            (b"authorization", b"DPoP " + token.value.encode("ascii")),
            (b"dpop", proof.encode("ascii")),
        ]
        if call.method != "GET":
            headers += [_JSON, (b"idempotency-key", call.idempotency_key.encode("ascii"))]
        body = call.again if again and call.again is not None else call.body
        target = (self._address.path + call.path).encode("ascii")
        return Request(call.method.encode("ascii"), target, headers, body, self._timeout(patience), call.most)

    def _timeout(self, patience: Patience) -> float:
        return min(self.timeouts.call, max(patience.left, 0.1))


class Tries:
    """What a failed try means: another one, after a pause, or the end. `level`: at which each of them is logged."""

    def __init__(self, what: str, patience: Patience, base: str, *, level: int = logging.WARNING) -> None:
        self._what = what
        self._patience = patience
        self._base = base
        self._level = level
        self._auth = 0

    def of(self, what: str) -> Tries:
        """Those of another call, which serves this one."""
        return Tries(what, self._patience, self._base, level=self._level)

    def unanswered(self, exchanged: Unreachable | Interrupted) -> Flow[None]:
        """Nobody answered. Raises `BrokerUnavailable` when there is no time for another try."""
        if isinstance(exchanged, Interrupted):
            self._patience.shorten(_LAST_MOMENT_S)
            return
        if exchanged.stale:
            return  # there are only so many kept connections
        yield from self._wait(BrokerUnavailable(detail=f"{self._what}: {NOBODY.format(self._base, exchanged.why)}"))

    def refused(self, error: StepgrantError) -> Flow[None]:
        """The broker refused. Raises the refusal unless another try can help."""
        if isinstance(error, (NonceRequired, InvalidToken)) and self._auth < _AUTH_TRIES:
            self._auth += 1
            return
        if not isinstance(error, BrokerError):
            raise error
        if not isinstance(error, BrokerUnavailable) and error.status < _SERVER_ERROR and error.status != _TOO_MANY:
            raise error
        yield from self._wait(error)

    def _wait(self, error: BrokerError) -> Flow[None]:
        pause = self._patience.pause(error.retry_after)
        if pause is None:
            raise error
        _log.log(self._level, "%s: %s; trying again in %.2f s", self._what, error.code, pause)
        yield Sleep(pause)


def problem_of(answer: Answer) -> StepgrantError:
    """The error that an answer stands for. The body's milliseconds are finer than the header's whole seconds."""
    members = answer.members()
    precise = isinstance(members.get("retry_after_ms"), int)
    return from_problem(answer.status, members, retry_after=None if precise else answer.retry_after)


def _unexpected(answer: Answer, detail: str) -> BrokerUnavailable:
    return BrokerUnavailable(code="unexpected_answer", status=answer.status, detail=detail)
