"""Statements that end the broker's sessions in PostgreSQL, and answer when they are gone.

`pg_terminate_backend` alone only sends a signal: a commit that comes before the session heard it is rightly in doubt,
and a test of idle connections would be one of whoever is faster.
"""

from __future__ import annotations

from typing import Final

_ENDED: Final = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name "
WRITER: Final = _ENDED + "= 'stepgrant-writer'"
ALL: Final = _ENDED + "LIKE 'stepgrant%'"
ALL_HERE: Final = ALL + " AND datname = current_database()"
"""Of the asker's database only: other tests use the same server."""
