"""Records of a hand's runs, as they go over the wire, truly or rewritten, and what making them again comes to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fakes.hand import Hand, allow
from stepgrant import canonical
from stepgrant_broker.domain.replaying import Decisions, Recorded
from stepgrant_broker.ledger.disclosed import Chain
from stepgrant_broker.policy.bundle import Bundle
from stepgrant_broker.policy.engines import Engines
from stepgrant_broker.policy.replaying import Made, Replay, Texts, Verdict
from stepgrant_broker.usecases.evidence import evidence

Entry = dict[str, Any]
GRANT = allow(ttl=30, redeem="required", params={"scope": "one"}) | {"labels": ["pii:a"], "meters": {"usd": 5}}
"""A decision document with every term that policy can set."""


async def page_of(broker: Hand, run: str | None) -> dict[str, Any]:
    """The whole chain as it goes over the wire."""
    found = await evidence(broker.ports, "acme", run, after=-1, limit=5000)
    return {
        "entries": [{"seq": row.seq, "data": canonical.b64u(row.data)} for row in found.entries],
        "disclosures": list(found.disclosures),
        "damaged": list(found.damaged),
    }


def rewritten(page: dict[str, Any], change: Callable[[Entry], None]) -> dict[str, Any]:
    """The chain with some entries changed and all hashes made right again, as somebody can who has the database."""
    prev, rows = canonical.b64u(bytes(32)), []
    for row in page["entries"]:
        entry = json.loads(canonical.b64u_decode(row["data"]))
        change(entry)
        data = canonical.dumps({**entry, "prev": prev})
        prev = canonical.b64u(hashlib.sha256(data).digest())
        rows.append({"seq": row["seq"], "data": canonical.b64u(data)})
    return {**page, "entries": rows}


def decisions_in(page: dict[str, Any], run: str | None) -> list[Recorded]:
    reader = Decisions()
    found = [one for shown in Chain(run).read(page) for one in reader.read(shown)]
    return [*found, *reader.end()]


async def texts(broker: Hand) -> Texts:
    kept = await broker.ports.reads.policies("acme")
    known = {one.revision: await broker.ports.reads.policy("acme", one.revision) for one in kept}
    return Texts(lambda revision: json.loads(found.text) if (found := known.get(revision)) is not None else None)


@contextmanager
def replay(known: Texts, candidate: Bundle | None = None) -> Iterator[Replay]:
    with Engines(None) as engines:
        yield Replay(engines, known, candidate)


async def made(broker: Hand, run: str | None, change: Callable[[Entry], None] | None = None) -> list[Made]:
    page = await page_of(broker, run)
    with replay(await texts(broker)) as maker:
        return maker.make(decisions_in(page if change is None else rewritten(page, change), run))


def verdicts(found: Sequence[Made]) -> dict[Verdict, int]:
    return {one: sum(each.verdict is one for each in found) for one in {each.verdict for each in found}}
