"""Looking at an engine from the outside, and hurrying it, for tests."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeAlias

import pytest

from policies import call
from stepgrant_broker.domain.decisions import Decision
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.ports import PolicyEngine
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.opa import OpaEngine

Make: TypeAlias = Callable[..., Awaitable[EmbeddedEngine]]
"""(bundle, revision, **limits of the engine) to an engine that is closed after the test."""
PATIENCE_S: Final = 30.0
"""Also the deadline of an engine that a test names none for: nothing that should be answered comes too late."""


async def decided(engine: PolicyEngine, policy_input: bytes | None = None) -> Decision:
    return parse((await engine.evaluate(policy_input or call())).raw)


async def served(engine: PolicyEngine, policy_input: bytes | None = None) -> Decision:
    """The decision, as soon as there is one again; the last refusal if there is none in time."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await decided(engine, policy_input)
        except PolicyUnavailable:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.01)


async def outcome(engine: EmbeddedEngine, policy_input: bytes) -> str:
    try:
        return type(await decided(engine, policy_input)).__name__
    except PolicyUnavailable:
        return "unavailable"


def hurried(engine: PolicyEngine, deadline_s: float) -> None:
    """What an engine that was loaded in peace is asked from now on has this deadline."""
    if isinstance(engine, OpaEngine):
        engine._settings = replace(engine._settings, deadline_s=deadline_s)
    else:
        assert isinstance(engine, EmbeddedEngine)
        engine._deadline_s = deadline_s


def process_of(engine: EmbeddedEngine) -> subprocess.Popen[bytes]:
    assert engine._channel is not None
    return engine._channel._process._process


def pid_of(engine: EmbeddedEngine) -> int:
    return process_of(engine).pid


async def lost(engine: EmbeddedEngine) -> None:
    """Kill its process, and let the engine take note."""
    channel = engine._channel
    assert channel is not None
    os.kill(pid_of(engine), signal.SIGKILL)
    await channel.gone.wait()


async def until_gone(pid: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"process {pid} is still there")
