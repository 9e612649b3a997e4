"""The active policy: how one revision takes the place of another.

Rules (in this order, so that no grant is decided under one revision and recorded under another):
* A new engine is built beside the present one; it must compile, pass all checks and answer the samples. What newer
  checks advise against in the policy that is in force already is told, and does not stop it (`policy/findings.py`).
* The activation is recorded in each tenant's chain; the tenant's guard rises with it.
* Only then does the new engine decide. In between, calls meet `RevisionMoved` and are decided again.
* The old engine answers what it was asked before it ends.
* Whatever fails on the way, the present policy stays in force.
* A policy whose place another one took comes back only if somebody says so: a replica that is started with old files
  must not roll back all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import structlog

from stepgrant_broker.domain.errors import PolicyUnavailable, StepgrantFault
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.policy.check import check
from stepgrant_broker.usecases.activate_policy import activate_policy, is_in_force, next_revision, refuse_superseded

if TYPE_CHECKING:
    from stepgrant_broker.domain.caller import PersonCaller
    from stepgrant_broker.domain.ports import Evaluation
    from stepgrant_broker.policy.bundle import Bundle
    from stepgrant_broker.usecases.context import Ports

RETIRE_S: Final = 5.0
Returns: TypeAlias = Callable[[int], bool]

_log = structlog.get_logger(__name__)


async def as_it_stands(ports: Ports, bundle: Bundle) -> Bundle:
    """The policy, knowing whether it is in force already. Raises `StoreUnavailable`."""
    return replace(bundle, in_force=await is_in_force(ports, bundle.digest))


def always(_: int) -> bool:
    """`returns` of who means what he activates."""
    return True


class Engine(Protocol):
    """A `PolicyEngine` that takes one policy at a time."""

    @property
    def revision(self) -> str | None:
        """The revision that decides now."""

    async def load(self, revision: str, bundle: Bundle) -> None:
        """Decide by this policy from now on. Raises `PolicyInvalid`, `PolicyUnavailable`; nothing has changed then."""

    async def evaluate(self, policy_input: bytes) -> Evaluation:
        """As the port says."""

    async def close(self) -> None:
        """As the port says."""


class Serving:
    """An engine with the number of its open questions."""

    def __init__(self, engine: Engine, bundle: Bundle) -> None:
        self.engine = engine
        self.bundle = bundle
        self._open = 0
        self._idle: asyncio.Event | None = None
        """Set when the last question is answered, once somebody waits for that."""

    async def evaluate(self, policy_input: bytes) -> Evaluation:
        """As the port says."""
        self._open += 1
        try:
            return await self.engine.evaluate(policy_input)
        finally:
            self._open -= 1
            if self._idle is not None and self._open == 0:
                self._idle.set()

    async def retire(self) -> None:
        """End it once its questions are answered. They have a deadline; what is longer overdue is given up."""
        if self._open:
            self._idle = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), RETIRE_S)
        await self.engine.close()


class ActivePolicy:
    """`PolicyEngine` over whatever revision is active. Before the first `activate` every call is unavailable."""

    def __init__(self, engines: Callable[[], Engine]) -> None:
        """`engines` makes an engine for each activation."""
        self._engines = engines
        self.waits_for: str | None = None
        """Why the policy that the operator wants is not active yet, while it is not."""
        self._serving: Serving | None = None
        self._turn = asyncio.Lock()

    @property
    def revision(self) -> str | None:
        """The revision that decides now."""
        return self._serving.engine.revision if self._serving is not None else None

    @property
    def bundle(self) -> Bundle | None:
        """The policy that decides now."""
        return self._serving.bundle if self._serving is not None else None

    def evaluate(self, policy_input: bytes) -> Coroutine[Any, Any, Evaluation]:
        """As the port says."""
        if self._serving is None:
            raise PolicyUnavailable(self.waits_for or "no policy is active yet", retry_after_ms=1000)
        return self._serving.evaluate(policy_input)

    async def activate(
        self,
        ports: Ports,
        bundle: Bundle,
        tenants: Iterable[str],
        person: PersonCaller | None = None,
        *,
        returns: Returns = always,
    ) -> str:
        """Make `bundle` the active policy of these tenants; the revision.

        `returns`: whether it may take the place of the revision with this counter although it was active before it.
        Raises `PolicyInvalid` for a policy with findings, `PolicyUnavailable` when the engine has not got it,
        `PolicySuperseded`, `StoreUnavailable`; the present policy then stays.
        """
        async with self._turn:
            # First: whoever is faster from here on makes this counter refused.
            revision = await next_revision(ports, bundle.digest)
            await refuse_superseded(ports, bundle.digest, returns)
            bundle = await as_it_stands(ports, bundle)
            engine = self._engines()
            try:
                await engine.load(revision, bundle)
                await self._record(ports, bundle, revision, tuple(tenants), person)
            except BaseException:
                await engine.close()
                raise
            before, self._serving, self.waits_for = self._serving, Serving(engine, bundle), None
            if before is not None:
                await before.retire()
        _log.info("policy_active", revision=revision)
        await _advise(bundle, revision)
        return revision

    async def _record(
        self, ports: Ports, bundle: Bundle, revision: str, tenants: tuple[str, ...], person: PersonCaller | None
    ) -> None:
        """Record the activation. If some tenant has it and another failed, the one that has it decides: go on."""
        failed: StepgrantFault | None = None
        done = 0
        for tenant in tenants:
            try:
                await activate_policy(ports, tenant, person, revision=revision, text=bundle.files)
                done += 1
            except StepgrantFault as fault:
                _log.error("policy_not_recorded", revision=revision, tenant=tenant, code=fault.code)
                done += await _is_recorded(ports, tenant, revision)
                failed = fault
        if failed is not None and done == 0:
            raise failed

    async def close(self) -> None:
        """Stop the engine."""
        serving, self._serving = self._serving, None
        if serving is not None:
            await serving.engine.close()


async def _advise(bundle: Bundle, revision: str) -> None:
    """Say what the checks find in a policy that went on deciding in spite of it."""
    if bundle.in_force and (found := await asyncio.to_thread(check, bundle)):
        _log.warning(
            "policy_has_findings",
            revision=revision,
            findings=[str(finding) for finding in found],
            fix="it goes on only because it is in force; correct it and activate the corrected one",
        )


async def _is_recorded(ports: Ports, tenant: str, revision: str) -> bool:
    """Whether a commit of unknown fate was made after all."""
    try:
        return (await ports.store.load(Query(tenant))).tenant.policy_revision == revision
    except StepgrantFault:
        return False
