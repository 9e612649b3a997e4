"""Sends mails side by side, and nobody can tell one call from the other after a crash."""

import asyncio

import stepgrant


@stepgrant.tool(effect="idempotent")
async def send(to: str) -> str:
    return f"sent to {to}"


async def main() -> None:
    async with stepgrant.run("newsletter", agent="mailer"):
        await asyncio.gather(*(send(to) for to in ("ada", "grace", "edsger")))


asyncio.run(main())
