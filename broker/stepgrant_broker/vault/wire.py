"""Requests to Vault on threads, because hvac is synchronous: a bounded pool, an outer deadline, nothing secret said.

Rules:
* hvac's adapter carries the requests; its `Client` is not used: it takes tokens from the environment and home folder.
* Redirects are not followed: a token would be sent wherever an answer points.
* Who waits is answered at the deadline. The thread may still be at it, so a request that was sent `maybe` happened.
  Its place in the bounded queue is free only when the thread is done: a hung Vault fills the queue, not the memory.
* Exceptions of hvac and urllib3 can hold requests with their tokens. They end in the thread that saw them.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

from hvac.adapters import RawAdapter
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError, SSLError

from stepgrant_broker.vault.answers import answer_of
from stepgrant_broker.vault.connections import ANSWER_MAX, AnswerTooLarge, AnswerTooSlow, Connections
from stepgrant_broker.vault.faults import VaultBad, VaultFault, VaultUnavailable

CONNECT_S: Final = 2.0
DEADLINE_S: Final = 5.0
LATE_S: Final = 10.0
"""How much longer a thread waits than whoever asked, when somebody wants to know of a late answer."""
WORKERS: Final = 8
QUEUE: Final = 64
PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@~+ /-]{0,511}")


Answer: TypeAlias = dict[str, Any] | VaultFault
Late: TypeAlias = Callable[[Answer], None]
"""Is told of an answer that comes when nobody waits for it any more."""


class VaultToken:
    """A Vault token in memory: masked, neither comparable, picklable nor copyable."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The token itself, for the one header it belongs in."""
        return self._value

    def __repr__(self) -> str:
        return "VaultToken(<masked>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Vault token can be neither pickled nor copied")


@dataclass(frozen=True, slots=True)
class Where:
    """Which Vault: its address, the namespace (Enterprise, OpenBao), and a CA bundle instead of the system's."""

    addr: str
    namespace: str | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True, repr=False)
class _Call:
    method: str
    path: str
    body: dict[str, Any] | None
    token: VaultToken | None
    wrap_ttl_s: int | None
    until: float
    late_s: float

    @property
    def asks(self) -> bool:
        """True for a method without a body."""
        return self.method in {"GET", "LIST"}

    def left(self) -> float:
        return self.until - time.monotonic()

    def named(self) -> str:
        return f"{self.method} {self.path}"


class Wire:
    """One Vault's requests. It lives on the event loop that uses it; `close` waits for its threads."""

    def __init__(self, where: Where, *, workers: int = WORKERS, queue: int = QUEUE) -> None:
        self.where = where
        self._most = workers + queue
        self._open = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="stepgrant-vault")
        self._adapter = RawAdapter(
            base_uri=where.addr,
            session=Connections(where.addr, where.ca_file, workers),
            allow_redirects=False,
            namespace=where.namespace,
        )

    async def send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        token: VaultToken | None,
        wrap_ttl_s: int | None = None,
        deadline_s: float = DEADLINE_S,
        late: Late | None = None,
    ) -> dict[str, Any]:
        """Send one request and return the answer's JSON object, `{}` for an empty one. Raises `VaultFault`.

        `late` is told of an answer that comes when nobody waits for it any more.
        """
        if not PATH.fullmatch(path) or any(part in {"", ".", ".."} for part in path.split("/")):
            raise VaultBad("a path of this form is not sent to Vault; see the names in the issuers file")
        late_s = LATE_S if late is not None else 0.0
        call = _Call(method, path, body, token, wrap_ttl_s, time.monotonic() + deadline_s, late_s)
        running = self._submit(call)
        waiting = asyncio.wrap_future(running)
        try:
            done, _ = await asyncio.wait({waiting}, timeout=deadline_s)
        except asyncio.CancelledError:
            _tell(waiting, late)
            raise
        if done:
            answer = waiting.result()
            if isinstance(answer, VaultFault):
                raise answer
            return answer
        # Cancelled before a thread took it: then nothing was sent.
        sent = not running.cancel()
        _tell(waiting, late)
        raise VaultUnavailable(f"Vault did not answer {call.named()} within {deadline_s:g} s", maybe=sent)

    async def close(self) -> None:
        """Refuse what is queued, wait for what runs (at most its deadline), close the connections."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
        self._adapter.close()

    def _submit(self, call: _Call) -> Future[Answer]:
        with self._lock:
            if self._open >= self._most:
                raise VaultUnavailable(f"{self._open} requests to Vault are under way; {call.named()} was not sent")
            self._open += 1
        try:
            running = self._pool.submit(self._run, call)
        except RuntimeError:
            self._release()
            raise VaultUnavailable(f"the connection to Vault is closed; {call.named()} was not sent") from None
        running.add_done_callback(self._release)
        return running

    def _release(self, _: object = None) -> None:
        with self._lock:
            self._open -= 1

    # From here on in a thread. A fault is returned, not raised: raised, it would carry the frames that hold the token.

    def _run(self, call: _Call) -> Answer:
        if call.left() <= 0:
            return VaultUnavailable(f"{call.named()} waited too long for a free thread and was not sent")
        try:
            reply = self._adapter.request(
                call.method,
                f"v1/{call.path}",
                headers={} if call.token is None else {"X-Vault-Token": call.token.reveal()},
                raise_exception=False,
                json=None if call.asks else call.body,
                params=call.body if call.asks else None,
                wrap_ttl=f"{call.wrap_ttl_s}s" if call.wrap_ttl_s is not None else None,
                timeout=(min(CONNECT_S, call.left()), call.left() + call.late_s),
            )
            text = reply.read(call.until + call.late_s)
        except AnswerTooLarge:
            return VaultBad(f"Vault's answer to {call.named()} is larger than {ANSWER_MAX} bytes", maybe=True)
        except AnswerTooSlow:
            return VaultUnavailable(f"Vault's answer to {call.named()} did not end in time", maybe=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it may hold the request and must not leave
            return self._lost(call, error)
        return answer_of(call.method, call.path, reply.status, text)

    def _lost(self, call: _Call, error: Exception) -> VaultFault:
        """What a failed exchange means. Without a connection, or without the right certificate, nothing was sent."""
        addr = self.where.addr
        if isinstance(error, SSLError) and error.args and isinstance(error.args[0], ssl.SSLCertVerificationError):
            return VaultUnavailable(f"{addr} shows a certificate that is not Vault's; set vault_ca_file to its CA")
        if isinstance(error, NewConnectionError | ConnectTimeoutError):
            return VaultUnavailable(f"Vault at {addr} cannot be reached; {call.named()} was not sent")
        if isinstance(error, ReadTimeoutError):
            return VaultUnavailable(f"Vault did not answer {call.named()} in time", maybe=True)
        if isinstance(error, FileNotFoundError | PermissionError):
            return VaultUnavailable(f"vault_ca_file {self.where.ca_file} cannot be read: {error.strerror}")
        return VaultUnavailable(f"the connection broke during {call.named()} ({type(error).__name__})", maybe=True)


def _tell(waiting: asyncio.Future[Answer], late: Late | None) -> None:
    def arrived(answered: asyncio.Future[Answer]) -> None:
        if late is not None and not answered.cancelled():
            late(answered.result())

    waiting.add_done_callback(arrived)
