"""Sends mails side by side, in whatever order, each under an id of its own.

All of them come to their end before the first error is raised: one that is cut off has used up its approval.
"""

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
        came = await asyncio.gather(*(send(to) for to in PEOPLE), return_exceptions=True)
        for error in came:
            if isinstance(error, BaseException):
                raise error
        run.result = came


asyncio.run(main())
