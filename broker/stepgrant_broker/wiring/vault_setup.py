"""`stepgrant vault setup`: what a broker with this issuers file and these keys needs in Vault, and bringing it about.

Rules:
* The broker's login can do what its issuers and its signer need and not more; what a grant's own token may do is in
  policies that the broker's login does not have.
* The admin token comes from a file or the environment, lives for one command and is in no output.
* The secret id of an AppRole is written to a new file of mode 0600 and shown nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from stepgrant_broker.config import SettingsError
from stepgrant_broker.config_signer import SignerSettings
from stepgrant_broker.config_vault import MOUNT, VaultSettings
from stepgrant_broker.domain.grants import MINT_DEADLINE_MS
from stepgrant_broker.issuers.file import IssuerConfig
from stepgrant_broker.signing.publishing import ALGORITHMS
from stepgrant_broker.signing.transit import transit_rules
from stepgrant_broker.signing.transit_keys import TYPES
from stepgrant_broker.signing.transit_wrap import KEY_TYPE, wrap_rules
from stepgrant_broker.vault import setup
from stepgrant_broker.vault.client import Vault, data_of
from stepgrant_broker.vault.faults import VaultBad, VaultFault, issuer_fault
from stepgrant_broker.vault.login import Login
from stepgrant_broker.vault.methods import TokenFile
from stepgrant_broker.vault.policies import SELF, broker_policy
from stepgrant_broker.vault.setup import GRANT_TOKEN, JWT_TIMES, TOKEN, AdminToken, Call, Wanted
from stepgrant_broker.vault.wire import Where, Wire
from stepgrant_broker.wiring.vault import configured_issuers

DEFAULT_ROLE: Final = "stepgrant-broker"
SELF_MADE: Final = "stepgrant."
"""What the policies of per-grant tokens begin with; the broker's own must not."""
LoginKind = Literal["approle", "jwt", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command was told. `role` names the broker's login role and its policy."""

    addr: str
    token: str | None = None
    token_file: Path | None = None
    namespace: str | None = None
    ca_file: Path | None = None
    issuers_file: Path | None = None
    transit: bool = False
    transit_names: Mapping[str, str] | None = None
    login: LoginKind = "approle"
    login_mount: str | None = None
    role: str = DEFAULT_ROLE
    jwt_subject: str | None = None
    jwt_audience: str | None = None
    secret_id_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was (or would be) done. `role_id`: of the AppRole, once there is one; it is not secret by itself."""

    calls: tuple[Call, ...]
    role_id: str | None
    secret_id_written: bool


def wanted_by(options: Options, issuers: Mapping[str, IssuerConfig], signer: SignerSettings) -> Wanted:
    """How Vault should be for these options. Raises `SettingsError`."""
    if options.role.startswith(SELF_MADE) or not MOUNT.fullmatch(options.role) or "/" in options.role:
        raise SettingsError([f"--role {options.role[:64]}: take letters, digits and . _ -, not beginning {SELF_MADE}"])
    rules: dict[str, tuple[str, ...]] = dict(SELF)
    policies: dict[str, str] = {}
    granted: dict[str, list[str]] = {}
    longest: dict[str, int] = {}
    for config in issuers.values():
        rules |= config.broker_rules()
        policies |= config.vault_policies()
        granted.setdefault(config.token_role, []).extend(config.vault_policies())
        longest[config.token_role] = max(longest.get(config.token_role, 0), config.max_ttl_s)
    keys: dict[str, str] = {}
    if options.transit:
        rules |= transit_rules(signer.transit_mount, signer.transit_keys.values())
        rules |= wrap_rules(signer.transit_mount, signer.transit_key_wrap)
        keys = {
            f"{signer.transit_mount}/keys/{name}": TYPES[ALGORITHMS[purpose]]
            for purpose, name in signer.transit_keys.items()
        }
        keys[f"{signer.transit_mount}/keys/{signer.transit_key_wrap}"] = KEY_TYPE
    leases = [pattern for config in issuers.values() for pattern in config.leases()]
    policies[options.role] = broker_policy(rules, leases)
    logins, login_roles = _login(options)
    return Wanted(
        mounts={signer.transit_mount: "transit"} if options.transit else {},
        keys=keys,
        policies=policies,
        token_roles={
            role: {
                **GRANT_TOKEN,
                "allowed_policies": sorted(names),
                "token_explicit_max_ttl": longest[role] + MINT_DEADLINE_MS // 1000,
            }
            for role, names in granted.items()
        },
        logins=logins,
        login_roles=login_roles,
    )


def _login(options: Options) -> tuple[dict[str, str | None], dict[str, Mapping[str, Any]]]:
    mount, own = _mount(options), {**TOKEN, "token_policies": [options.role]}
    match options.login:
        case "none":
            return {}, {}
        case "approle":
            return {mount: "approle"}, {f"auth/{mount}/role/{options.role}": {**own, "bind_secret_id": True}}
        case "jwt":
            if not options.jwt_subject or not options.jwt_audience:
                raise SettingsError(["--login jwt needs --jwt-subject and --jwt-audience: whose token, and for whom"])
            role = {
                **own,
                **JWT_TIMES,
                "role_type": "jwt",
                "user_claim": "sub",
                "bound_subject": options.jwt_subject,
                "bound_audiences": [options.jwt_audience],
            }
            # Whom the method trusts is not ours to say, so it must be there.
            return {mount: None}, {f"auth/{mount}/role/{options.role}": role}


def _mount(options: Options) -> str:
    return options.login_mount or options.login


async def set_up(options: Options, *, do: bool) -> Report:
    """Plan, and with `do` apply. Raises `SettingsError`, and `IssuerUnavailable` in Vault's place."""
    settings, signer = _settings(options)
    wanted = wanted_by(options, configured_issuers(settings), signer)
    wire = Wire(Where(options.addr.rstrip("/"), options.namespace, options.ca_file))
    method = AdminToken(options.token) if options.token else TokenFile(options.token_file or Path())
    vault = Vault(wire, Login(wire, method))
    try:
        calls = await setup.plan(vault, wanted)
        if do:
            await setup.apply(vault, calls)
        return await _handed_over(vault, options, calls, do=do)
    except VaultFault as fault:
        said = f" (Vault said: {fault.said})" if fault.said else ""
        raise type(issuer_fault(fault))(f"{fault.detail}{said}") from None
    finally:
        await vault.close()


async def _handed_over(vault: Vault, options: Options, calls: list[Call], *, do: bool) -> Report:
    """The AppRole's role id, and its secret id in a file of its own where one is wanted and not there."""
    if options.login != "approle":
        return Report(tuple(calls), None, secret_id_written=False)
    path = f"auth/{_mount(options)}/role/{options.role}"
    missing = options.secret_id_file is not None and not options.secret_id_file.exists()
    if missing:
        calls = [*calls, Call("POST", f"{path}/secret-id", {}, f"a secret id, written to {options.secret_id_file}")]
    if not do:
        return Report(tuple(calls), None, secret_id_written=False)
    if missing and options.secret_id_file is not None:
        _write(options.secret_id_file, data_of(await vault.request("POST", f"{path}/secret-id", {})).get("secret_id"))
    role_id = data_of(await vault.request("GET", f"{path}/role-id")).get("role_id")
    return Report(tuple(calls), role_id if isinstance(role_id, str) else None, secret_id_written=missing)


def _write(path: Path, secret: object) -> None:
    if not isinstance(secret, str) or not secret:
        raise VaultBad("Vault's answer holds no secret id")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError([f"{path} cannot be written: {error.strerror}"]) from None
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secret + "\n")
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _settings(options: Options) -> tuple[VaultSettings, SignerSettings]:
    if (options.token is None) == (options.token_file is None):
        raise SettingsError(["an admin token is needed: --token-file, or VAULT_TOKEN in the environment; not both"])
    given = {
        "vault_addr": options.addr,
        "vault_namespace": options.namespace,
        "vault_ca_file": options.ca_file,
        "vault_auth": "token",
        "vault_token_file": options.token_file or Path(),
        "issuers_file": options.issuers_file,
    }
    try:
        return VaultSettings.model_validate(given), SignerSettings.model_validate(dict(options.transit_names or {}))
    except ValidationError as error:
        raise SettingsError(
            [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors(include_url=False)]
        ) from None
