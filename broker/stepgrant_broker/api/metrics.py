"""Counters and histograms in the Prometheus text format, of this process, without a library.

Rules: label values come from declarations (paths, methods, codes, outcomes), never from a request, so neither secrets
nor an unbounded number of series can get in; no label names a tenant.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from stepgrant_broker.domain.errors import StoreUnavailable
from stepgrant_broker.domain.refusals import StoreRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepgrant_broker.domain.ports import Store
    from stepgrant_broker.domain.writes import Loaded, Query, WriteSet

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MEDIA_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Counter:
    """A number that only grows, per set of label values."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def add(self, *values: str, by: float = 1) -> None:
        """Count."""
        self._values[values] = self._values.get(values, 0) + by

    def lines(self) -> list[str]:
        """The series in text form."""
        head = [f"# HELP {self._name} {self._text}", f"# TYPE {self._name} counter"]
        return head + [f"{self._name}{_labels(self._labels, k)} {_number(v)}" for k, v in sorted(self._values.items())]


class Gauge:
    """A number as it is now."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text, self.value = name, text, 0.0

    def lines(self) -> list[str]:
        """The series in text form."""
        head = [f"# HELP {self._name} {self._text}", f"# TYPE {self._name} gauge"]
        return [*head, f"{self._name} {_number(self.value)}"]


class Histogram:
    """How long something took, in seconds, per set of label values."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, seconds: float, *values: str) -> None:
        """Count one."""
        counts = self._counts.get(values)
        if counts is None:
            counts = self._counts[values] = [0] * (len(BUCKETS) + 1)
        counts[bisect_left(BUCKETS, seconds)] += 1
        self._sums[values] = self._sums.get(values, 0.0) + seconds

    def lines(self) -> list[str]:
        """The series in text form, buckets cumulated."""
        lines = [f"# HELP {self._name} {self._text}", f"# TYPE {self._name} histogram"]
        for values, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*map(_number, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                labels = _labels((*self._labels, "le"), (*values, bound))
                lines.append(f"{self._name}_bucket{labels} {total}")
            labels = _labels(self._labels, values)
            lines.append(f"{self._name}_sum{labels} {_number(self._sums[values])}")
            lines.append(f"{self._name}_count{labels} {total}")
        return lines


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = [f'{name}="{value}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(value)


class Metrics:
    """What one broker process counts."""

    def __init__(self) -> None:
        self._requests = Counter("stepgrant_requests_total", "Answers by route.", ("route", "method", "status"))
        self._seconds = Histogram("stepgrant_request_seconds", "Time to answer.", ("route", "method"))
        self._outcomes = Counter(
            "stepgrant_outcomes_total", "Outcomes of prepare, start and begin.", ("call", "outcome")
        )
        self._commits = Counter("stepgrant_commits_total", "Write sets given to the store.", ("result",))
        self._commit_seconds = Histogram("stepgrant_commit_seconds", "Time to a durable commit.")
        self._store_errors = Counter("stepgrant_store_errors_total", "Failures of the store.", ("kind",))
        self._sweeps = Counter("stepgrant_sweeps_total", "Rounds of the sweeper that came to their end.")
        self._swept_at = Gauge(
            "stepgrant_sweep_last_success_timestamp_seconds", "When a round of the sweeper last came to its end: alarm."
        )
        self._sweep_failures = Counter(
            "stepgrant_sweep_failures_total", "Single things that the sweeper could not do; it tries again.", ("work",)
        )
        self._swept = Counter("stepgrant_swept_runs_total", "Runs whose lease lapsed and that were parked.")
        self._confirmed = Counter(
            "stepgrant_leases_confirmed_total", "Credentials outside whose death the sweeper saw."
        )
        self._unconfirmed = Gauge(
            "stepgrant_leases_unconfirmed", "Credentials outside that should be dead and may live."
        )
        self._leaves = Counter("stepgrant_log_leaves_total", "Entries that this process integrated into the log.")
        self._log_size = Gauge("stepgrant_log_counted_size", "Size of the newest tree head that counts.")
        self._log_errors = Counter("stepgrant_log_errors_total", "Failed rounds of the sequencer.", ("kind",))
        self._oldest = Gauge("stepgrant_leases_oldest_due_seconds", "For how long the oldest of those is due: alarm.")
        self._entries_waiting = Gauge("stepgrant_log_entries_waiting", "Entries that have no place in the log yet.")
        self._oldest_waiting = Gauge(
            "stepgrant_log_oldest_waiting_seconds", "For how long the oldest of those waits: alarm."
        )
        self._parked = Gauge("stepgrant_runs_parked", "Runs that nobody holds and that are not ended.")
        self._asked = Gauge("stepgrant_approvals_pending", "Questions that people can still answer.")
        self._witnesses = Counter(
            "stepgrant_witness_refusals_total", "Heads that a witness did not cosign.", ("witness", "kind")
        )
        self._outdated = Gauge("stepgrant_policy_outdated", "1: another policy than this broker's is active: alarm.")
        self._queue = Gauge("stepgrant_store_queue_length", "What waits for the store's one writer.")
        self._queue_length: Callable[[], int] = lambda: 0
        self._vault = Gauge("stepgrant_vault_session_up", "1: there is a session with the broker's Vault; 0: alarm.")
        self._vault_up: Callable[[], bool] | None = None

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """One answer."""
        self._requests.add(route, method, str(status))
        self._seconds.observe(seconds, route, method)

    def outcome(self, call: str, outcome: str) -> None:
        """One outcome."""
        self._outcomes.add(call, outcome)

    def commit(self, result: str, seconds: float) -> None:
        """One write set: `done`, `refused` or `failed`."""
        self._commits.add(result)
        self._commit_seconds.observe(seconds)

    def store_error(self, kind: str) -> None:
        """One failure of the store."""
        self._store_errors.add(kind)

    def swept(self, parked: int) -> None:
        """One round of the sweeper."""
        self._swept.add(by=parked)

    def sweep_done(self) -> None:
        """It came to its end; what of it failed was single things (`sweep_failed`)."""
        self._sweeps.add()
        self._swept_at.value = round(time.time(), 3)

    def sweep_failed(self, work: str) -> None:
        """One thing that a round could not do: `park`, `take_back` or `erase`."""
        self._sweep_failures.add(work)

    def leases(self, confirmed: int, unconfirmed: int, oldest_s: float) -> None:
        """What a round of the sweeper found outside."""
        self._confirmed.add(by=confirmed)
        self._unconfirmed.value, self._oldest.value = unconfirmed, oldest_s

    def log(self, integrated: int, counted: int) -> None:
        """One round of the sequencer."""
        self._leaves.add(by=integrated)
        self._log_size.value = counted

    def log_failed(self, kind: str) -> None:
        """One failed round of the sequencer."""
        self._log_errors.add(kind)

    def backlog(self, entries: int, oldest_s: float, parked: int, asked: int) -> None:
        """What waits in the whole database: each broker of it says the same."""
        self._entries_waiting.value, self._oldest_waiting.value = entries, oldest_s
        self._parked.value, self._asked.value = parked, asked

    def witness_refused(self, witness: str, kind: str) -> None:
        """One head that it did not cosign: `silent`, `refused` or `invalid`."""
        self._witnesses.add(witness, kind)

    def policy_outdated(self, outdated: bool) -> None:  # noqa: FBT001 - a gauge of two values
        """Whether the active policy is another one than that by which this broker decides."""
        self._outdated.value = int(outdated)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Where the length of the writer's queue is read at each scrape."""
        self._queue_length = length

    def watch_vault(self, is_up: Callable[[], bool] | None) -> None:
        """Where it is read at each scrape whether there is a session with Vault. None: there is no such series."""
        self._vault_up = is_up

    def text(self) -> str:
        """All series."""
        self._queue.value = self._queue_length()
        parts: tuple[Counter | Gauge | Histogram, ...] = (
            self._requests, self._seconds, self._outcomes, self._commits,
            self._commit_seconds, self._store_errors, self._sweeps, self._swept,
            self._swept_at, self._sweep_failures, self._confirmed, self._unconfirmed, self._oldest,
            self._leaves, self._log_size, self._log_errors, self._entries_waiting, self._oldest_waiting,
            self._parked, self._asked, self._witnesses, self._outdated, self._queue,
        )  # fmt: skip
        if self._vault_up is not None:
            self._vault.value = int(self._vault_up())
            parts = (*parts, self._vault)
        return "\n".join(line for part in parts for line in part.lines()) + "\n"


class MeteredStore:
    """The same store, counted."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics

    def recall(self, query: Query) -> Loaded | None:
        """As `Store.recall`."""
        return self._store.recall(query)

    async def load(self, query: Query) -> Loaded:
        """As `Store.load`."""
        try:
            return await self._store.load(query)
        except StoreUnavailable as fault:
            self._metrics.store_error(type(fault).__name__)
            raise

    async def commit(self, writes: WriteSet) -> None:
        """As `Store.commit`."""
        started = time.perf_counter()
        result = "failed"
        try:
            await self._store.commit(writes)
            result = "done"
        except StoreRefusal:
            result = "refused"
            raise
        except StoreUnavailable as fault:
            self._metrics.store_error(type(fault).__name__)
            raise
        finally:
            self._metrics.commit(result, time.perf_counter() - started)

    async def close(self) -> None:
        """As `Store.close`."""
        await self._store.close()
