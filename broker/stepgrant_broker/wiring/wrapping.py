"""What wraps secrets at rest: keys in the key folder, or keys there that only Vault can open.

Rules:
* Keys are only made together with a new database. With keys of Vault's, both the making and every start need Vault.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.domain.errors import SignerUnavailable
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.usecases.rewrap import rewrap
from stepgrant_broker.usecases.tenant_call import Effectuated, operator_action, tenant_call

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings
    from stepgrant_broker.domain.journal import Journal
    from stepgrant_broker.domain.rewrapping import RewrapStore
    from stepgrant_broker.domain.writes import Loaded
    from stepgrant_broker.signing.transit_wrap import Transit
    from stepgrant_broker.usecases.context import Ports
    from stepgrant_broker.vault.client import Vault


async def wrap_of(settings: Settings, vault: Vault | None) -> LocalWrap:
    """The wrap, with its keys open. Raises `SignerUnavailable`."""
    if settings.key_wrap == "local" or vault is None:
        return LocalWrap.open(settings.keys_folder)
    from stepgrant_broker.signing.transit_wrap import TransitWrap  # noqa: PLC0415 - an extra

    return await TransitWrap.open_with(transit_of(settings, vault), settings.keys_folder)


def make_wrap_keys(settings: Settings) -> None:
    """Make the keys of a new installation. Not inside an event loop. Raises `SignerUnavailable`, `SettingsError`."""
    if settings.key_wrap == "local":
        LocalWrap.open(settings.keys_folder, create=True)
    else:
        asyncio.run(_make_in_vault(settings))


async def _make_in_vault(settings: Settings) -> None:
    try:
        from stepgrant_broker.signing.transit_wrap import TransitWrap  # noqa: PLC0415 - an extra
        from stepgrant_broker.wiring.vault import vault_of  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise SettingsError([f"{PREFIX}VAULT_ADDR: it needs `pip install 'stepgrant[vault]'`"]) from None
    vault = vault_of(settings)
    try:
        await TransitWrap.open_with(transit_of(settings, vault), settings.keys_folder, create=True)
    finally:
        await vault.close()


def transit_of(settings: Settings, vault: Vault) -> Transit:
    """The configured key."""
    from stepgrant_broker.signing.transit_wrap import Transit  # noqa: PLC0415 - an extra

    return Transit(vault, settings.transit_mount, settings.transit_key_wrap)


async def rotate_wrap(ports: Ports, tenant: str) -> str:
    """Make a newer wrap key and enter it in this tenant's chain; its id. Raises `SignerUnavailable`, and the store."""
    wrap = ports.wrap
    if not isinstance(wrap, LocalWrap):
        raise SignerUnavailable("these wrap keys are not in a key folder")
    key_id = await wrap.rotate()
    await _entered(ports, tenant, "wrap_key_made", {"key_id": key_id})
    return key_id


async def rewrap_all(ports: Ports, store: RewrapStore, tenant: str) -> dict[str, Any]:
    """`usecases.rewrap`, and with Vault the key files too; entered in this tenant's chain. Raises as they do."""
    wrap = ports.wrap
    done = asdict(await rewrap(store, wrap))
    if isinstance(wrap, LocalWrap):
        await wrap.rewrap_files()
    await _entered(ports, tenant, "rewrapped", {"key_id": wrap.key_id, **done})
    return {"key_id": wrap.key_id, **done}


async def _entered(ports: Ports, tenant: str, action: str, detail: dict[str, Any]) -> None:
    def act(journal: Journal, _: Loaded) -> Effectuated:
        operator_action(journal, action, detail=detail)
        return Effectuated({})

    await tenant_call(ports, tenant, None, call=action, act=act)
