"""Asking policy: the raw answer of whatever engine, closed into a decision, under the revision that is active."""

from __future__ import annotations

import asyncio

from stepgrant_broker.domain.decisions import Decided
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.refusals import RevisionMoved
from stepgrant_broker.usecases.activate_policy import newest_revision
from stepgrant_broker.usecases.context import Ports


async def refuse_outdated(ports: Ports, policy_input: bytes) -> None:
    """Raises `PolicyUnavailable` unless the engine answers by the revision that is active: no decision would count."""
    answer = await ports.policy.evaluate(policy_input)
    active = newest_revision(await ports.reads.tenants())
    if active is not None and answer.revision != active:
        raise PolicyUnavailable(f"the engine decides by revision {answer.revision}, but {active} is active")


async def decide(ports: Ports, policy_input: bytes, active: str | None) -> Decided:
    """One decision. Raises `PolicyUnavailable` when the engine fails, `RevisionMoved` when it is not the active one."""
    if ports.failpoints is not None:
        ports.failpoints.hit("usecase.before_policy")
    answer = await ports.policy.evaluate(policy_input)
    if active is None or answer.revision != active:
        # While a new revision is being activated the two differ for a moment; the caller's retry loads both anew.
        await asyncio.sleep(0.02)
        raise RevisionMoved(f"the engine decides by revision {answer.revision}, but {active} is active")
    return Decided(ports.parse(answer.raw), answer.revision, answer.decision_id, answer.engine, policy_input)
