"""OPA, Vault and PostgreSQL on loopback: found or made (`find`, `provision`), started and ended (the three servers).

Standard library only. Tests import it (tests/services.py gives fixtures); people use `python deploy/services`.
"""

from stepgrant_services.binaries import Found, find
from stepgrant_services.building import provision
from stepgrant_services.errors import BuildFailed, ServiceError, ServiceMissing
from stepgrant_services.opa import OpaServer
from stepgrant_services.postgres import PostgresServer
from stepgrant_services.server import Server
from stepgrant_services.vault import VaultServer

__all__ = [
    "BuildFailed",
    "Found",
    "OpaServer",
    "PostgresServer",
    "Server",
    "ServiceError",
    "ServiceMissing",
    "VaultServer",
    "find",
    "provision",
]
