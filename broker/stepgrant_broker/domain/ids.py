"""Identifiers: prefixed ULIDs and the alphabet of step keys.

An identifier is never authority: every lookup also names the tenant, and guessing one gains nothing.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

from stepgrant import canonical

CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
PAIRS: Final = tuple(one + two for one in CROCKFORD for two in CROCKFORD)
STEP_KEY: Final = re.compile(r"[A-Za-z0-9._:~-]{1,200}")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}")
TENANT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
RESUME_STEP: Final = "~resume"
OPEN_STEP: Final = "~open"
HOOK: Final = "~reconcile~"


def ulid(now: int, entropy: bytes) -> str:
    """A ULID (26 characters) for `now` in milliseconds and 10 bytes of randomness."""
    # Ten bits at a time, of numbers that a machine word holds: this is made for every grant and decision.
    one, two = int.from_bytes(entropy[:5], "big"), int.from_bytes(entropy[5:10], "big")
    return (
        f"{_beginning(now >> 20 & (1 << 28) - 1)}{PAIRS[now >> 10 & 1023]}{PAIRS[now & 1023]}"
        f"{PAIRS[one >> 30]}{PAIRS[one >> 20 & 1023]}{PAIRS[one >> 10 & 1023]}{PAIRS[one & 1023]}"
        f"{PAIRS[two >> 30]}{PAIRS[two >> 20 & 1023]}{PAIRS[two >> 10 & 1023]}{PAIRS[two & 1023]}"
    )


@lru_cache(maxsize=4)
def _beginning(high: int) -> str:
    """The first six characters: they change every 17 minutes."""
    return PAIRS[high >> 20] + PAIRS[high >> 10 & 1023] + PAIRS[high & 1023]


def safe_step_key(key: str) -> str:
    """The key itself where it fits the alphabet, else its hash in that alphabet (`protocol.md` §2)."""
    if STEP_KEY.fullmatch(key):
        return key
    return "h-" + canonical.b64u(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())


def parent_of(key: str) -> str | None:
    """The parent of a nested key `parent~child`, or `None`."""
    head, tilde, _ = key.rpartition("~")
    return head if tilde and head else None


def is_hook(key: str) -> bool:
    """Whether this is the step of a reconcile hook's look, `<key>~reconcile~<n>` (`protocol.md` §4)."""
    return HOOK in key


def default_idempotency_key(run: str, step: str) -> str:
    """The key that all attempts of a step share when the tool names none of its own."""
    digest = hashlib.sha256(f"{run}\x00{step}".encode()).digest()
    return "sg-" + canonical.b64u(digest)
