"""The order of the looks, and what one broken part means for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from stepgrant_broker.config import SettingsError, load_settings
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.wiring.doctor import host, records
from stepgrant_broker.wiring.doctor.findings import Area, Found
from stepgrant_broker.wiring.doctor.outside import outside
from stepgrant_broker.wiring.doctor.service import service

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepgrant_broker.config import Settings
    from stepgrant_broker.wiring.broker import Broker

SETTINGS: Final = Area("settings")


async def examine() -> AsyncIterator[Found]:
    """Look at everything that the settings of this environment name. Never raises a fault: it is what is looked for."""
    try:
        settings = load_settings()
    except SettingsError as error:
        for problem in error.problems:
            yield SETTINGS.fail("environment", problem, "`stepgrant serve --help` lists the settings")
        return
    yield SETTINGS.ok("environment", "every setting is known and whole")
    for look in (host.host, host.address, host.keys, records.schema):
        async for found in _guarded(look.__name__, lambda look=look: look(settings)):  # type: ignore[misc]
            yield found
    async with AsyncExitStack() as stack:
        opened = await _open(stack, settings)
        if isinstance(opened, Found):
            yield opened
        async for found in _of_broker(settings, None if isinstance(opened, Found) else opened):
            yield found


async def _of_broker(settings: Settings, broker: Broker | None) -> AsyncIterator[Found]:
    async for found in _guarded("policy", lambda: records.policy(settings, broker)):
        yield found
    if broker is not None:
        opened = broker
        for name, look in (("clock", records.clock), ("newest", records.newest), ("work", records.work)):
            async for found in _guarded(name, lambda look=look: look(opened)):  # type: ignore[misc]
                yield found
    async for found in _guarded("outside", lambda: outside(settings, broker)):
        yield found
    async for found in _guarded("service", lambda: service(settings, broker)):
        yield found


async def _open(stack: AsyncExitStack, settings: Settings) -> Broker | Found:
    from stepgrant_broker.wiring.broker import opened  # noqa: PLC0415 - it imports every adapter

    try:
        return await stack.enter_async_context(opened(settings, looking=True))
    except SettingsError as error:
        return SETTINGS.fail("environment", "; ".join(error.problems), "correct these settings")
    except StepgrantFault as fault:
        return records.DATABASE.unseen("records", f"not read: {fault.detail}")


async def _guarded(name: str, look: Callable[[], AsyncIterator[Found]]) -> AsyncIterator[Found]:
    try:
        async for found in look():
            yield found
    except SettingsError as error:
        yield SETTINGS.fail(name, "; ".join(error.problems), "correct these settings")
    except StepgrantFault as fault:
        yield Area(name).fail(name, fault.detail, "the message says what is missing; then look again")
