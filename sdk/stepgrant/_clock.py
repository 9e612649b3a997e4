"""The wall clock in seconds that proofs and the life of access tokens go by.

`ahead_s` is a seam for tests: `stepgrant.testing` moves it together with the clock of the broker that it started, so
that a test may let days pass. Assertions of workloads keep to the system's time; the test broker knows.
"""

from __future__ import annotations

import time

ahead_s = 0.0


def now() -> float:
    """Seconds since the epoch."""
    return time.time() + ahead_s
