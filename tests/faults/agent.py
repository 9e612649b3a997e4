"""An agent as a user of the SDK would write it. Tests kill it anywhere and start it again; nothing in it knows that.

Usage: agent.py FACE RUN_KEY; the face is `blocking` or `asyncio`. STEPGRANT_URL and STEPGRANT_WORKLOAD_KEY as always;
FAULTS_TARGET is the address of `target.py`. FAULTS_DIE says where something else than a failpoint of the SDK kills it:
`plan` (while planning), `<step>@<when>` (by the target, see there).

It says what it was told, one JSON line each: `run` and `epoch`, `acts` (a tool of this step runs, so it was granted),
`told` (what a call returned), `stopped` (why it ended without an end), `ended`.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import ssl
import sys
import uuid
from collections.abc import Callable
from typing import Any

import httpx

import stepgrant
from stepgrant.errors import StepgrantError

COME_AGAIN = 75  # EX_TEMPFAIL
TARGET = os.environ.get("FAULTS_TARGET", "")
DIE = os.environ.get("FAULTS_DIE", "")
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # plain HTTP; to load whom one trusts takes longer than all calls
http = httpx.Client(auth=stepgrant.http.Auth(), verify=NO_TLS, timeout=30, trust_env=False)


def say(**line: Any) -> None:  # noqa: ANN401 - JSON
    """One line, out of this process when it returns."""
    os.write(1, json.dumps(line).encode() + b"\n")


def ask(tool: str, args: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Have the target do it."""
    step = stepgrant.current_step()
    say(acts=step.key, attempt=step.attempt, epoch=step.epoch)
    key, _, when = DIE.partition("@")
    headers = {"Faults-Kill": f"{when}:{os.getpid()}"} if when and key == step.key else {}
    return http.post(f"{TARGET}/{tool}", json=args, headers=headers).raise_for_status().json()


def was_it_done(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
    """The reconcile hook: only the target knows."""
    url = f"{TARGET}/{step.tool}.reconcile"
    found = http.post(url, params={"key": step.idempotency_key}, json=dict(step.args)).raise_for_status().json()
    return stepgrant.done(found[0]) if found else stepgrant.not_done()


def make_plan() -> dict[str, Any]:
    """As a model's: another one each time."""
    if DIE == "plan":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"order": uuid.uuid4().hex}


def read_stock(order: str) -> Any:  # noqa: ANN401 - JSON
    """A read."""
    return ask("stock.read", {"order": order})


def put_note(order: str, stock: str) -> Any:  # noqa: ANN401 - JSON
    """Idempotent."""
    return ask("note.put", {"order": order, "stock": stock})


def charge_card(order: str) -> Any:  # noqa: ANN401 - JSON
    """Once."""
    return ask("card.charge", {"order": order})


def send_mail(order: str, charge: str) -> Any:  # noqa: ANN401 - JSON
    """Once, with what an earlier step gave: another result of that one would be another action."""
    return ask("mail.send", {"order": order, "charge": charge})


def declared(face: Callable[[Callable[..., Any]], Any]) -> dict[str, Any]:
    """The guarded tools, as `def` or as `async def`."""
    charging = stepgrant.tool(name="card.charge", effect="once", step_id="charge", reconcile=was_it_done)
    sending = stepgrant.tool(name="mail.send", effect="once", step_id="send", reconcile=was_it_done)
    return {
        "plan": stepgrant.step("plan", step_id="plan")(face(make_plan)),
        "read": stepgrant.tool(name="stock.read", effect="read", step_id="read")(face(read_stock)),
        "note": stepgrant.tool(name="note.put", effect="idempotent", step_id="note")(face(put_note)),
        "charge": charging(face(charge_card)),
        "send": sending(face(send_mail)),
    }


async def work(tools: dict[str, Any], call: Callable[..., Any]) -> str:
    """The agent's loop. Each call's value is said, and used by the next."""

    async def told(step: str, **args: str) -> Any:  # noqa: ANN401 - JSON
        value = await call(tools[step], **args)
        say(told=step, value=value)
        return value

    plan = await told("plan")
    stock = await told("read", order=plan["order"])
    await told("note", order=plan["order"], stock=stock["id"])
    charge = await told("charge", order=plan["order"])
    mail = await told("send", order=plan["order"], charge=charge["id"])
    return str(mail["id"])


async def called(tool: Callable[..., Any], **args: str) -> Any:  # noqa: ANN401 - JSON
    """A blocking tool, called."""
    return tool(**args)


async def awaited(tool: Callable[..., Any], **args: str) -> Any:  # noqa: ANN401 - JSON
    """A native tool, awaited."""
    return await tool(**args)


def as_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function as `async def`, with the same signature."""

    @functools.wraps(function)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - those of the function
        return function(*args, **kwargs)

    return coroutine


async def blocking(key: str) -> None:
    """`with`, `def`."""
    tools = declared(lambda function: function)
    with stepgrant.run(key, agent="worker") as run:
        say(run=run.id, epoch=run.epoch)
        run.result = await work(tools, called)


async def native(key: str) -> None:
    """`async with`, `async def`."""
    tools = declared(as_coroutine)
    async with stepgrant.run(key, agent="worker") as run:
        say(run=run.id, epoch=run.epoch)
        run.result = await work(tools, awaited)


def main() -> int:
    """Do it, or say why not now."""
    face, key = sys.argv[1:]
    try:
        asyncio.run((blocking if face == "blocking" else native)(key))
    except (StepgrantError, httpx.HTTPError) as error:
        say(stopped=getattr(error, "code", type(error).__name__), why=str(error)[:300])
        return COME_AGAIN
    say(ended=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
