"""Sends mails side by side, in whatever order, each under an id of its own."""

from __future__ import annotations

import asyncio

import stepgrant

PEOPLE = {"ada", "edsger", "grace"}


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
async def send(to: str) -> str:
    await asyncio.sleep(0.01)
    return f"sent to {to}"


async def main() -> None:
    async with stepgrant.run("newsletter", agent="mailer") as run:
        run.result = await asyncio.gather(*(send(to) for to in PEOPLE))


asyncio.run(main())
