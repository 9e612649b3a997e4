"""Recorded decisions as a broker gives them over HTTP: chain by chain, page by page, each entry checked on this side.

Rules: nothing is believed that its bytes do not prove; a chain that breaks ends there, and says where; memory holds one
page of one run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stepgrant import canonical, receipt
from stepgrant.cli.exits import CommandError
from stepgrant.cli.people import segment
from stepgrant.errors import StepgrantError
from stepgrant_broker.domain.ids import CROCKFORD
from stepgrant_broker.domain.next_actions import Newest
from stepgrant_broker.domain.replaying import Decisions, Recorded
from stepgrant_broker.ledger.disclosed import BROKEN, UNFOLDABLE, Chain

if TYPE_CHECKING:
    from stepgrant.cli.people import People
    from stepgrant.receipt import Verified

PAGE: Final = 200
CLOCKS_MS: Final = 3_600_000
"""How far the time in a decision's id may be from that of its entry."""
OWN_IDS: Final = "dec_"


@dataclass(frozen=True, slots=True)
class Broken:
    """A chain that does not hold: nothing behind this place can be made again. `seq` is None for the whole chain."""

    run: str | None
    seq: int | None
    what: str


class Source:
    """One chain out of its pages. After `batches` is through: the run as folded, its newest inputs, its bindings."""

    def __init__(self, pages: Iterator[Mapping[str, Any]], run: str | None) -> None:
        self._pages = pages
        self.run = run
        self.decisions = Decisions()
        self.newest = Newest()
        self.broken: Broken | None = None

    def batches(self) -> Iterator[list[Recorded]]:
        """The chain's decisions, a page at a time. `broken` is set where it ends too early."""
        chain = Chain(self.run)
        for page in self._pages:
            batch: list[Recorded] = []
            self._read(chain, page, batch)
            yield batch
            if self.broken is not None:
                break
        yield list(self.decisions.end())

    def _read(self, chain: Chain, page: Mapping[str, Any], batch: list[Recorded]) -> None:
        seq: int | None = None
        try:
            for shown in chain.read(page):
                seq = shown.entry.seq
                batch.extend(self.decisions.read(shown))
                self.newest.read(shown)
        except BROKEN as error:
            self.broken = Broken(self.run, error.position, str(error))
        except UNFOLDABLE as error:
            what = f"does not follow from the entries before it ({type(error).__name__})"
            self.broken = Broken(self.run, seq, what)


def of_broker(broker: People, run: str | None) -> Source:
    """The chain of a run as the broker gives it; `None` is the tenant's own."""
    return Source(_pages(broker, run), run)


def _pages(broker: People, run: str | None) -> Iterator[Mapping[str, Any]]:
    path = "/v1/ledger/decisions" if run is None else f"/v1/runs/{segment(run)}/decisions"
    after: int | None = -1
    while after is not None:
        page = broker.get(path, after=after, limit=PAGE)
        yield page
        # A broker that never comes to an end is not followed: an empty page is the last one.
        after = page.get("next") if page.get("entries") else None


def of_receipt(file: Path, keys: Path) -> tuple[Source, Verified]:
    """The chain in a run's receipt, once it is verified. Raises `ReceiptError`, `CommandError`."""
    data, known = (_bytes(path) for path in (file, keys))
    verified = receipt.verify(data, known)
    if verified.scope[0] != "run":
        raise CommandError("only the receipt of a whole run says all that its decisions were made on")
    top: Mapping[str, Any] = canonical.loads(data, max_bytes=receipt.MAX_BYTES)  # type: ignore[assignment]
    entries = [{"data": entry} for entry in top["entries"]]
    page = {"entries": entries, "disclosures": top["disclosures"], "damaged": []}
    return Source(iter([page]), verified.run), verified


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", code="not_found") from None


def runs_since(broker: People, since: int | None) -> Iterator[str]:
    """The ids of all runs that may have decisions since then (ms), the newest first."""
    for one in broker.pages("/v1/runs", "runs"):
        if since is None or one["ended_at"] is None or one["ended_at"] >= since:
            yield str(one["id"])


def runs_around(broker: People, decision: str) -> Iterator[str]:
    """The ids of the runs that may have made this decision, the newest first. An id of ours says when it was made."""
    at = _time_of(decision)
    for one in broker.pages("/v1/runs", "runs"):
        began, ended = one["opened_at"], one["ended_at"]
        if at is None or (began <= at + CLOCKS_MS and (ended is None or ended >= at - CLOCKS_MS)):
            yield str(one["id"])


def _time_of(decision: str) -> int | None:
    if not decision.startswith(OWN_IDS):
        return None
    head = decision.removeprefix(OWN_IDS)[:10]
    if len(head) < 10 or any(letter not in CROCKFORD for letter in head):  # noqa: PLR2004 - the time of a ULID
        return None
    at = 0
    for letter in head:
        at = at * 32 + CROCKFORD.index(letter)
    return at


def since_ms(text: str) -> int:
    """A date (its beginning in UTC) or a time with its zone, in ms since the epoch. Raises `CommandError`."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError("--since is a date like 2026-11-20, or a time like 2026-11-20T08:00:00Z") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return int(at.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class TextOf:
    """Finds a policy's files by its revision; `None` where the broker does not keep them."""

    broker: People

    def __call__(self, revision: str) -> Mapping[str, str] | None:
        """The files by path."""
        try:
            found = self.broker.get(f"/v1/policies/{segment(revision)}")["text"]
        except StepgrantError as error:
            if error.code == "not_found":
                return None
            raise
        return {str(path): str(text) for path, text in dict(found).items()}
