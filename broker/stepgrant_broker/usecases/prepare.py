"""Prepare: record the step and ask policy; mints nothing, may be repeated, and is advice only."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.calls import StepCall
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.step_call import run_call


def prepare(
    ports: Ports, caller: AgentCaller, run: str, call: StepCall, request: Request
) -> Coroutine[Any, Any, dict[str, Any]]:
    """The outcome on the wire (`protocol.md` §2). Raises the errors of `step_call.run_call`."""
    return run_call(ports, caller, run, call, request, "prepare")
