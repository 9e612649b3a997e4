"""What wrapped values are bound to (associated data of their encryption): nothing at rest can be moved elsewhere."""

from __future__ import annotations


def chain_key(tenant: str, run: str) -> bytes:
    """For the key of a run's chain (`run` empty: the tenant's own)."""
    return f"stepgrant chain key\x00{tenant}\x00{run}".encode()


def static_secret(tenant: str, name: str) -> bytes:
    """For a static secret."""
    return f"stepgrant static secret\x00{tenant}\x00{name}".encode()
