"""Witnesses: those that this broker asks, and one that this machine runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stepgrant import _http, tlog
from stepgrant._errors import ConfigurationError
from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.ledger.witness import Witness, witness_app
from stepgrant_broker.ledger.witnesses import PATIENCE_S, HttpWitnesses
from stepgrant_broker.signing.folder import KeyFolder
from stepgrant_broker.signing.local import keys_in
from stepgrant_broker.wiring.server import listen, serve_app

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from stepgrant.tlog.policy import LogPolicy
    from stepgrant_broker.config import Settings

PURPOSE: Final = "witness"
STORE: Final = "witness.db"


def witnesses_of(
    stack: AsyncExitStack, settings: Settings, refused: Callable[[str, str], None]
) -> HttpWitnesses | None:
    """The witnesses that the settings name; `refused` as of `HttpWitnesses`. Raises `SettingsError`."""
    policy = policy_of(settings)
    if policy is None:
        return None
    import httpx  # noqa: PLC0415 - 0.1 s that most commands need not wait

    try:
        authorities = _http.authorities()
    except ConfigurationError as error:
        raise SettingsError([str(error)]) from None
    client = httpx.AsyncClient(verify=authorities, timeout=PATIENCE_S, trust_env=False)
    stack.push_async_callback(client.aclose)
    try:
        return HttpWitnesses(policy, client, refused)
    except ConfigurationError as error:
        raise SettingsError([f"{PREFIX}LOG_POLICY_FILE: {settings.log_policy_file}: {error}"]) from None


def policy_of(settings: Settings) -> LogPolicy | None:
    """The log policy that the settings name. Raises `SettingsError`."""
    path = settings.log_policy_file
    if path is None:
        return None
    try:
        return tlog.read_log_policy(path.read_text())
    except OSError as error:
        raise SettingsError([f"{PREFIX}LOG_POLICY_FILE: {path} cannot be read: {error.strerror}"]) from None
    except (tlog.LogPolicyInvalid, UnicodeDecodeError) as error:
        raise SettingsError([f"{PREFIX}LOG_POLICY_FILE: {path}: {error}"]) from None


def open_witness(folder: Path, name: str, logs: Sequence[str]) -> Witness:
    """A witness with key and store in this folder, which is made if it is missing.

    Raises `LogPolicyInvalid` for a name or verifier key that is none, `SignerUnavailable` for a folder or key that
    others can read or that is damaged.
    """
    keys = [tlog.read_vkey(line) for line in logs]
    (secret, *_) = keys_in(KeyFolder(folder, create=True), PURPOSE, "EdDSA")
    return Witness(name, secret, keys, folder / STORE)


async def run_witness(witness: Witness, settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve it until a signal ends it. Raises `UnsafeBind`, `SettingsError`."""
    try:
        await serve_app(witness_app(witness), settings, listen(settings), ready=ready)
    finally:
        witness.close()
