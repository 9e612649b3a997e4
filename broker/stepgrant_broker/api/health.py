"""Whether this replica can do its work: store, policy and signer are really asked, at most once in a short while.

Rules: whoever asks learns only which of them fails; and however many ask, they are asked one at a time. A replica whose
store lost commits under it (`log`) is not ready: what it grants stands in a second past. Nor is one whose engine has
another policy than the active one: it refuses every decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

import structlog

from stepgrant_broker.api.access import PURPOSE
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.deciding import refuse_outdated

State = Literal["ok", "failed"]

FRESH_MS: Final = 1000
PATIENCE_S: Final = 5.0
SAMPLE: Final = b"stepgrant: can this be signed? (no token begins like this)"
QUESTION: Final = b"{}"

_log = structlog.get_logger(__name__)


class Health:
    """Asks the ports, and remembers the answer for `FRESH_MS`. `log`: raises where it does not go on where it was."""

    def __init__(self, ports: Ports, log: Callable[[], Awaitable[None]] | None = None) -> None:
        self._ports = ports
        self._log = log
        self._lock = asyncio.Lock()
        self._checks: Mapping[str, State] = {}
        self._asked_at: int | None = None

    async def checks(self) -> Mapping[str, State]:
        """`ok` or `failed` for store, policy and signer, and for the log of a broker that has one."""
        async with self._lock:
            now = self._ports.clock.now()
            if self._asked_at is None or not 0 <= now - self._asked_at < FRESH_MS:
                asked: Mapping[str, Callable[[], Awaitable[object]]] = {
                    "store": self._ports.reads.tenants,
                    "policy": lambda: refuse_outdated(self._ports, QUESTION),
                    "signer": lambda: self._ports.signer.sign(PURPOSE, SAMPLE),
                }
                if self._log is not None:
                    asked = {**asked, "log": self._log}
                self._checks = {name: await _state(name, ask) for name, ask in asked.items()}
                self._asked_at = now
            return self._checks


async def _state(name: str, ask: Callable[[], Awaitable[object]]) -> State:
    try:
        await asyncio.wait_for(ask(), PATIENCE_S)
    except (StepgrantFault, TimeoutError) as error:
        why = error.detail if isinstance(error, StepgrantFault) else f"no answer within {PATIENCE_S} s"
        _log.warning("not_ready", check=name, kind=type(error).__name__, why=why)
        return "failed"
    return "ok"
