"""Vault and the issuers that need it, from the settings and the issuers file.

Rules:
* A broker starts while Vault is away: its other issuers serve, and Vault's do as soon as it is there.
* The issuers file is read once, at the start, and whole: one wrong line and nothing starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.config_vault import KUBERNETES_TOKEN
from stepgrant_broker.issuers.file import RESERVED, IssuersFileInvalid, read_issuers
from stepgrant_broker.issuers.vault_database import DatabaseConfig
from stepgrant_broker.issuers.vault_kv import KvConfig
from stepgrant_broker.issuers.vault_pki import PkiConfig
from stepgrant_broker.vault.client import Vault
from stepgrant_broker.vault.login import Login
from stepgrant_broker.vault.methods import AppRole, Jwt, Method, TokenFile
from stepgrant_broker.vault.wire import Where, Wire

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings
    from stepgrant_broker.config_vault import VaultSettings
    from stepgrant_broker.domain.ports import Issuer
    from stepgrant_broker.issuers.file import IssuerConfig, Kind

KINDS: Final[Mapping[str, Kind]] = {kind.kind: kind.read for kind in (DatabaseConfig, KvConfig, PkiConfig)}


def configured_issuers(settings: VaultSettings) -> Mapping[str, IssuerConfig]:
    """The issuers of the issuers file by name; none without one. Raises `SettingsError`."""
    return _issuers_in(settings.issuers_file)


def issuer_names(file: Path | None) -> frozenset[str]:
    """What policy may name where this is the issuers file: its issuers, and those that are always there.

    Raises `SettingsError`.
    """
    return RESERVED | _issuers_in(file).keys()


def _issuers_in(file: Path | None) -> Mapping[str, IssuerConfig]:
    if file is None:
        return {}
    try:
        return read_issuers(file, KINDS)
    except IssuersFileInvalid as invalid:
        raise SettingsError([f"{PREFIX}ISSUERS_FILE: {problem}" for problem in invalid.problems]) from None


def vault_of(settings: Settings) -> Vault:
    """The configured Vault, not yet started. Raises `SettingsError` without one."""
    if settings.vault_addr is None:
        raise SettingsError([f"{PREFIX}VAULT_ADDR: set it"])
    wire = Wire(Where(settings.vault_addr, settings.vault_namespace, settings.vault_ca_file))
    return Vault(wire, Login(wire, _method(settings)))


def open_vault(stack: AsyncExitStack, settings: Settings) -> tuple[Vault | None, Mapping[str, Issuer]]:
    """Vault, which logs in when it is first asked (`start`: at once), and its issuers; `stack` ends it.

    Raises `SettingsError`.
    """
    configs = configured_issuers(settings)
    vault = vault_of(settings)
    stack.push_async_callback(vault.close)
    return vault, {name: config.build(vault) for name, config in configs.items()}


def _method(settings: Settings) -> Method:
    # The settings have checked that each method has what it needs.
    mount = settings.vault_auth_mount or settings.vault_auth
    match settings.vault_auth:
        case "approle":
            return AppRole(mount, settings.vault_role_id or "", _path(settings.vault_secret_id_file))
        case "jwt" | "kubernetes":
            return Jwt(mount, settings.vault_role or "", settings.vault_jwt_file or KUBERNETES_TOKEN)
        case "token":
            return TokenFile(_path(settings.vault_token_file))


def _path(path: Path | None) -> Path:
    if path is None:
        raise SettingsError([f"{PREFIX}VAULT_AUTH: its file is not set"])
    return path
