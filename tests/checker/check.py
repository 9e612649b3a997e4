"""The referee: `check(evidence)` names every invariant that does not hold, and where it shows.

It is written from the protocol's pages and knows nothing of a broker. A healthy run, however often it was killed,
parked, fenced, denied or given back, gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from checker.chain import read_chain
from checker.evidence import Broken, Evidence


def check(evidence: Evidence) -> list[Broken]:
    """Every invariant that does not hold, chain by chain; empty when all of them do."""
    return list(_check(evidence))


def _check(evidence: Evidence) -> Iterator[Broken]:
    for (tenant, run), records in evidence.chains():
        read = read_chain(tenant, run, records)
        yield from read.broken
