"""What tests of a whole broker share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from stepgrant_broker.wiring import Broker

Made = Callable[..., AbstractAsyncContextManager[Broker]]

REGO = """# METADATA
# title: A test's policy
package stepgrant

default decision := {"effect": "deny", "reasons": ["WORD"]}

decision := {"effect": "allow", "reasons": ["WORD"]} if input.action.tool == "allowed"
"""


def says(word: str) -> dict[str, str]:
    """A policy that gives this reason for everything."""
    return {"stepgrant/main.rego": REGO.replace("WORD", word)}


async def until(true: Callable[[], bool], patience_s: float = 60) -> None:
    """Wait for something that comes by itself."""
    async with asyncio.timeout(patience_s):
        while not true():  # noqa: ASYNC110 - what is waited for gives no event
            await asyncio.sleep(0.02)
