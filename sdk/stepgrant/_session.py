"""One process's hold on one run: epoch, key, lease, and what is known of having lost it.

Rules:
* Once fenced, always fenced: every later call here raises what was learned, without asking the broker again.
* The holder's key does not survive a fork, so in a forked child every call is `KeyLost` before anything is sent.
* Time left on the lease is counted from before the call that renewed it was sent.
"""

from __future__ import annotations

import copy
import time
from typing import Any, Final

from stepgrant import _errors as e
from stepgrant import _outcomes
from stepgrant._caller import Caller
from stepgrant._calls import Call, ParkReason
from stepgrant._client import AsyncClient, BlockingClient
from stepgrant._dpop import DpopKey
from stepgrant._flows import Flow
from stepgrant._frames import Frame
from stepgrant._timeouts import Patience, Timeouts


class Session:
    """Shared by the blocking face, the asyncio face and the heartbeat of one run."""

    def __init__(
        self,
        opened: _outcomes.Opened,
        caller: Caller,
        *,
        blocking: BlockingClient,
        asyncio: AsyncClient,
        passthrough: tuple[type[BaseException], ...] = (),
    ) -> None:
        self.run_id: Final = opened.run
        self.epoch: Final = opened.epoch
        self.opened: Final = opened
        self.blocking: Final = blocking
        self.asyncio: Final = asyncio
        self.passthrough: Final = passthrough
        self.top: Final = Frame(self)
        self.recorded: Final[set[str]] = set()
        """Keys that this process has recorded: a call of one of these may be a repetition."""
        self.given_up = False
        """Whether the run was parked or ended here, so that leaving its block has nothing more to say."""
        self.waiting: Final[dict[str, ParkReason]] = {}
        """Calls that a framework left to come back to, by their ids: a run with one of these is not over."""
        self.came_to: str | None = None
        """How it was given up: `complete`, `fail`, `cancel` or `park`."""
        self.stopping = False
        """Set when this process has to give the run back: no new step begins (`_border`)."""
        self._caller = caller
        self._renewed_at = time.monotonic()
        self._lost: e.StepgrantError | None = None

    @property
    def timeouts(self) -> Timeouts:
        """How long to wait for what."""
        return self._caller.timeouts

    @property
    def key(self) -> DpopKey:
        """The holder's key, made for this open or resume."""
        return self._caller.key

    @property
    def lease_s(self) -> float:
        """The lease's length in seconds."""
        return self.opened.lease_ms / 1000

    @property
    def next_beat_in(self) -> float:
        """Seconds until the lease should be renewed: a third of it after it was renewed last, by whatever call."""
        return max(0.0, self._renewed_at + self.lease_s / 3 - time.monotonic())

    @property
    def lost(self) -> e.StepgrantError | None:
        """Why this process holds the run no more; None while it does."""
        return self._lost

    def lose(self, why: e.StepgrantError) -> None:
        """This process does not hold the run any more. The first reason stays."""
        if self._lost is None:
            self._lost = why

    def require_held(self) -> None:
        """Raises what was learned when the run was lost."""
        if self._lost is not None:
            # A copy: one exception raised in several threads would grow one traceback for all.
            raise copy.copy(self._lost)

    def call(
        self,
        call: Call,
        kind: Any,  # noqa: ANN401  # as `read`
        *,
        patience: Patience | None = None,
        again: bool = False,
    ) -> Flow[Any]:
        """As `Caller.call`, for the holder. Raises `StaleEpoch` and its kin, for good once it was learned."""
        self.require_held()
        patience = patience or Patience(self.timeouts.broker)
        try:
            answer = yield from self._caller.call(call, kind, patience=patience, again=again)
        except (e.StaleEpoch, e.RunEnded) as error:
            self.lose(error)
            raise
        except e.BrokerError as error:
            if error.code != "wrong_holder":
                raise
            self.lose(e.StaleEpoch(f"another process holds the run now ({error.detail})"))
            raise copy.copy(self._lost or error) from None
        if call.method == "POST":
            self._renewed_at = max(self._renewed_at, patience.sent_at)
        return answer

    def close(self) -> None:
        """Drop the blocking connections. Those of asyncio are closed in their loop."""
        self.blocking.close()
