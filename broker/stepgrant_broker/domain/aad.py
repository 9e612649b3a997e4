"""What wrapped values are bound to (associated data of their encryption): nothing at rest can be moved elsewhere."""

from __future__ import annotations


def chain_key(tenant: str, run: str) -> bytes:
    """For the key of a run's chain (`run` empty: the tenant's own)."""
    return f"stepgrant chain key\x00{tenant}\x00{run}".encode()


def payload(tenant: str, run: str, c: str, name: str, form: str) -> bytes:
    """For what stands behind a commitment of a chain."""
    return f"stepgrant payload\x00{tenant}\x00{run}\x00{c}\x00{name}\x00{form}".encode()


def static_secret(tenant: str, name: str) -> bytes:
    """For a static secret."""
    return f"stepgrant static secret\x00{tenant}\x00{name}".encode()
