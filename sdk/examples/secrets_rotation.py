# ruff: noqa: ARG001, INP001, T201 - a program, run as a file; its tools send the arguments that they are called with
"""Rotating a secret: make the new key, hand it out to every service, see that it works, and only then end the old one.

The order is the safety: a crash between any two steps leaves a key that works everywhere. The services are served side
by side, in any order, so each call has a step id of its own. The key itself never passes through the agent: it names
keys, and the services fetch what they are allowed to.

    stepgrant dev -- python _target.py python secrets_rotation.py 2026-11
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httpx

import stepgrant

SERVICES = httpx.AsyncClient(
    base_url=os.environ.get("EXAMPLES_TARGET", "http://127.0.0.1:8431"), auth=stepgrant.http.Auth(), trust_env=False
)


async def ask_service(suffix: str = "", **query: str) -> Any:  # noqa: ANN401 - JSON
    """Have the service do what this step is: its address takes the tool and the arguments as they are."""
    step = stepgrant.current_step()
    answer = await SERVICES.post(f"/{step.tool}{suffix}", params=query, json=dict(step.args))
    return answer.raise_for_status().json()


async def look(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
    """After a crash, the service says whether it happened: nobody guesses."""
    asked = {"key": step.idempotency_key}
    answer = await SERVICES.post(f"/{step.tool}.reconcile", params=asked, json=dict(step.args))
    found = answer.raise_for_status().json()
    return stepgrant.done(found[0]) if found else stepgrant.not_done()


@stepgrant.tool(name="service.list", effect="read", step_id="services")
async def list_services() -> Any:  # noqa: ANN401 - JSON
    """Who uses the key. Completed once, so the list does not change under a resumed run."""
    return await ask_service()


@stepgrant.tool(name="key.create", effect="once", step_id="create", reconcile=look)
async def create_key(label: str) -> Any:  # noqa: ANN401 - JSON
    """A second new key would be one that nobody ever ends."""
    return await ask_service()


@stepgrant.tool(name="key.deploy", effect="idempotent", step_id="deploy-{service}")
async def deploy(service: str, key: str) -> Any:  # noqa: ANN401 - JSON
    """The service knows the idempotency key: told twice, it does it once."""
    return await ask_service()


@stepgrant.tool(name="key.check", effect="read", step_id="check-{service}")
async def check(service: str, key: str) -> Any:  # noqa: ANN401 - JSON
    """Does this service work with the new key?"""
    return await ask_service()


@stepgrant.tool(name="key.revoke", effect="once", step_id="revoke", reconcile=look)
async def revoke_older(than: str) -> Any:  # noqa: ANN401 - JSON
    """From here on there is no way back, which is why it comes last."""
    return await ask_service()


async def hand_out(service: str, key: str) -> str:
    """One service: deploy, then check."""
    await deploy(service, key)
    await check(service, key)
    return service


async def rotate(label: str) -> int:
    """The same code whether it starts or comes back."""
    try:
        async with stepgrant.run(f"rotate-{label}", agent="rotation", input={"label": label}) as run:
            services = await list_services()
            key = (await create_key(run.input["label"]))["id"]
            done = await asyncio.gather(*(hand_out(service, key) for service in services))
            await revoke_older(key)
            run.result = {"key": key, "services": sorted(done)}
            print(f"{key} is in use by {', '.join(sorted(done))}; older keys are ended")
    except stepgrant.errors.RunEnded as over:
        if over.state != "completed":
            print(over)
            return 1
        print(f"{label} is rotated")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(rotate(*(sys.argv[1:] or ["2026-11"]))))
