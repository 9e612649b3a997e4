"""What PostgreSQL said when it refused, in a few words without names or values."""

from __future__ import annotations

import re
from typing import Final

import psycopg

FATAL: Final = re.compile(r"FATAL:\s+(.*)")
QUOTED: Final = re.compile(r'\s*"[^"]*"')
ENDED: Final = "ended"
NOT_LET_IN: Final = "password authentication failed for user"


def refusal(error: psycopg.Error) -> str:
    """The SQLSTATE; of a connection that was not made, the server's words; of one that broke, `ended`."""
    if error.sqlstate is not None:
        return error.sqlstate
    found = FATAL.search(str(error))
    if found is None:
        return ENDED
    return QUOTED.sub("", found[1]).strip()
