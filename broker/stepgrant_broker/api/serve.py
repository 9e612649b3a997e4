"""Where the broker may listen. `commands/` asks before it binds.

Rule: credentials leave this socket in clear, so it is reachable from elsewhere only under TLS, or when the operator has
said that a proxy which ends TLS is the only one that can reach it.
"""

from __future__ import annotations

import ipaddress


class UnsafeBind(Exception):
    """The broker would send credentials in clear over a network. `code` is stable."""

    code = "unsafe_bind"


def is_loopback(host: str) -> bool:
    """True for `localhost` and loopback addresses; a name could mean any address, an empty host all of them."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def refuse_unsafe_bind(host: str, *, tls: bool, proxy_terminates_tls: bool) -> None:
    """Raises `UnsafeBind` for an address that is not loopback without TLS or the word of the operator."""
    if tls or proxy_terminates_tls or is_loopback(host):
        return
    raise UnsafeBind(
        f"refusing to listen on {host or 'all addresses'} without TLS: credentials would cross the network in clear. "
        "Give a certificate and key, listen on 127.0.0.1, or set proxy_terminates_tls=true if a proxy that you trust "
        "ends TLS and nobody else can reach this port"
    )
