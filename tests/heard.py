"""What is logged, at every level, whatever another test of this process made of the logs before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog import testing


@contextmanager
def capture_logs() -> Iterator[list[Any]]:
    """As `structlog.testing.capture_logs`, but under structlog's own defaults.

    A broker that was started with `log_level=error` leaves a filter behind, and warnings would never arrive here.
    """
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.reset_defaults()
    try:
        with testing.capture_logs() as found:
            yield found
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)
