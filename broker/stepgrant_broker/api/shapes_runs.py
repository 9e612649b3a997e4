"""The shapes of answers about runs, by the rules of `shapes.py`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from stepgrant_broker.api.shapes import Doubt

RunState = Literal["open", "parked", "quarantined", "completed", "failed", "cancelled"]


class RunHistory(msgspec.Struct):
    """What a run has behind it."""

    steps: int
    outcomes: dict[str, int]
    tools: dict[str, int]
    parked_ms: int


class OpenedRun(msgspec.Struct):
    """A run that the caller holds from now on."""

    run: str
    run_key: str
    agent: str
    epoch: int
    resumed: bool
    lease_ms: int
    lease_until: int
    input: Any
    has_input: bool
    history: RunHistory
    in_doubt: list[Doubt]


class QueuedRun(msgspec.Struct):
    """A run that is stored. `queued`: by this call, or an equal one before."""

    run: str
    run_key: str
    agent: str
    state: RunState
    queued: bool


class Held(msgspec.Struct):
    """A lease that goes on."""

    run: str
    epoch: int
    state: str
    lease_until: int


class Parked(msgspec.Struct):
    """A run that nobody holds."""

    run: str
    state: str
    epoch: int


class EndedRun(msgspec.Struct):
    """A run at its end: the hash of its last entry, and how many there are."""

    run: str
    state: Literal["completed", "failed", "cancelled"]
    head: str
    entries: int


class ErasedRun(EndedRun):
    """A run of which only its entries are left. `erased_at` in ms."""

    erased_at: int


class RunView(msgspec.Struct):
    """A run as it is listed and shown. `meters` are in units, `carries` are the labels of what it has read.

    `resumable`: somebody should go on with it now. `resumable_at` (ms): since when, or for a held run the end of its
    lease; null while that takes a person. `tries`: how often it was opened since a step last got a result.
    """

    id: str
    key: str
    agent: str
    version: str | None
    state: RunState
    epoch: int
    workload: str
    opened_at: int
    ended_at: int | None
    parked_at: int | None
    park_reason: str | None
    lease_until: int
    labels: dict[str, str]
    steps: int
    entries: int
    head: str
    denials: int
    meters: dict[str, float]
    carries: list[str]
    resumable: bool
    resumable_at: int | None
    tries: int
    erased_at: int | None


class ShownRun(RunView):
    """One run. `park_detail`: what whoever parked it said of it."""

    park_detail: str | None


class Runs(msgspec.Struct):
    """A page of runs, newest first; of those that are resumable, oldest first. `now` is the broker's clock (ms)."""

    runs: list[RunView]
    next: str | None
    now: int
