"""Which policy engine decides, and how a policy is activated that OPA must have, too.

Rules:
* An activation needs both: the broker's policy, checked, and OPA with the bundle of the same digest. Until they agree
  the present policy stays in force; before the first, every decision is `PolicyUnavailable` with the reason.
* The broker asks again by itself until they agree, so that files and bundle may come in any order.
* What the broker wants last is what it waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.domain.errors import PolicySuperseded, PolicyUnavailable, StepgrantFault
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.wiring.policy import always, as_it_stands

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.wiring.broker import Broker
    from stepgrant_broker.wiring.policy import Engine, Returns

AGREE_S: Final = 0.25
"""How often OPA is asked whether it has the policy that the broker waits for."""

_log = structlog.get_logger(__name__)


def engines_of(settings: Settings, decision_ids: Callable[[], str]) -> Callable[[], Engine]:
    """What makes an engine for each activation. Raises `SettingsError`."""
    if settings.policy_engine == "embedded":
        return lambda: EmbeddedEngine(decision_ids=decision_ids)
    try:
        from stepgrant_broker.policy.opa import OpaEngine, OpaOptions  # noqa: PLC0415 - an extra
        from stepgrant_broker.policy.opa_place import Limits, OpaFailed, Place  # noqa: PLC0415 - as above
    except ModuleNotFoundError:
        raise SettingsError([f"{PREFIX}POLICY_ENGINE: opa needs `pip install 'stepgrant[opa]'`"]) from None
    place = Place(settings.opa_url or "", settings.opa_token_file, settings.opa_ca_file)
    options = OpaOptions(
        place,
        settings.opa_bundle,
        settings.opa_timeout_ms / 1000,
        Limits(in_flight=settings.opa_in_flight, waiting=settings.opa_waiting),
    )
    for name, check in (("OPA_CA_FILE", place.tls_context), ("OPA_TOKEN_FILE", place.authorization)):
        try:
            check()
        except OpaFailed as failed:
            raise SettingsError([f"{PREFIX}{name}: {failed}"]) from None
    return lambda: OpaEngine(options, decision_ids=decision_ids)


class Wanted:
    """The policy that the operator wants, on its way to being active."""

    def __init__(self, broker: Broker, *, patient: bool) -> None:
        """`patient`: wait for an engine that has not got the policy yet, instead of failing."""
        self._broker = broker
        self._patient = patient
        self._returns: Returns = always
        self._task: asyncio.Task[None] | None = None
        self._acting = asyncio.Lock()

    @property
    def waits(self) -> bool:
        """Whether a policy is on its way."""
        return self._task is not None and not self._task.done()

    async def want(self, bundle: Bundle, *, returns: Returns = always) -> str | None:
        """Activate it now, or as soon as the engine has it: its revision, or `None` while it waits.

        `returns` as of `ActivePolicy.activate`. Raises `PolicyInvalid`, `PolicySuperseded`, `StoreUnavailable`;
        `PolicyUnavailable` if it does not wait.
        """
        await self.stop()
        self._returns = returns
        try:
            return await self._broker.activate(bundle, returns=returns)
        except PolicySuperseded:
            raise
        except PolicyUnavailable as fault:
            if not self._patient:
                raise
            await self._check(bundle)
            self._wait(fault.detail)
        self._task = asyncio.create_task(self._pursue(bundle), name="stepgrant-policy")
        return None

    async def stop(self) -> None:
        """Want it no more. An activation that is under way is finished: half of one is recorded and does not decide."""
        task, self._task = self._task, None
        if task is not None:
            async with self._acting:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _check(self, bundle: Bundle) -> None:
        """A policy that could never be activated is nothing to wait for."""
        from stepgrant_broker.policy.opa import checked  # noqa: PLC0415 - an extra

        await asyncio.to_thread(checked, await as_it_stands(self._broker.ports, bundle))

    def _wait(self, why: str) -> None:
        if why != self._broker.policy.waits_for:
            self._broker.policy.waits_for = why
            _log.warning("policy_waits", why=why, stays_active=self._broker.policy.revision)

    async def _pursue(self, bundle: Bundle) -> None:
        told: str | None = None
        while True:
            await asyncio.sleep(AGREE_S)
            async with self._acting:
                failed = await self._try(bundle)
            if failed is None:
                return
            if failed and failed != told:
                _log.error("policy_not_activated", code=failed)
            told = failed

    async def _try(self, bundle: Bundle) -> str | None:
        """`None` once it is active; else the code of what failed, empty while OPA only has to be waited for."""
        try:
            revision = await self._broker.activate(bundle, returns=self._returns)
        except PolicyUnavailable as fault:
            self._wait(fault.detail)
            return ""
        except PolicyInvalid as invalid:
            # The text passed the checks here, so this is about what OPA answers.
            self._wait(invalid.detail)
            return ""
        except StepgrantFault as fault:
            return fault.code
        _log.warning("policy_reloaded", revision=revision)
        return None
