"""The broker that should be running: does it answer under its public name, is it ready, and what time is it there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import httpx

from stepgrant_broker.wiring.doctor.findings import Area, Found

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings

PATIENCE_S: Final = 10.0
SECOND_MS: Final = 1000

SERVICE: Final = Area("service")


async def service(settings: Settings) -> AsyncIterator[Found]:
    """Ask the running broker as an agent would reach it."""
    url = settings.public_url
    try:
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            alive, ready = await client.get(f"{url}/healthz"), await client.get(f"{url}/readyz")
    except httpx.HTTPError as error:
        yield SERVICE.warn(
            "running", f"nobody answers at {url} ({type(error).__name__})",
            "start it with `stepgrant serve`; if it runs, look at public_url, proxy and firewall",
        )  # fmt: skip
        return
    if alive.status_code != httpx.codes.OK:
        yield SERVICE.fail(
            "running", f"{url}/healthz answers {alive.status_code}", "is this the broker? see public_url"
        )
        return
    yield SERVICE.ok("running", f"it answers at {url}")
    if ready.status_code == httpx.codes.OK:
        yield SERVICE.ok("ready", "store, policy and signer answer")
    else:
        yield SERVICE.fail(
            "ready", f"not ready: {_failed(ready)}", "the findings here, and not_ready in its log, say why"
        )
    if "date" in alive.headers:
        apart = parsedate_to_datetime(alive.headers["date"]).timestamp() - time.time()
        leeway = settings.leeway_ms / SECOND_MS + 1
        if abs(apart) > leeway:
            yield SERVICE.fail("clock", f"its clock is {apart:.0f} s from this host's", "set both by NTP")


def _failed(answer: httpx.Response) -> str:
    try:
        checks = answer.json()["checks"]
        return ", ".join(sorted(str(name) for name, state in checks.items() if state != "ok")) or "no reason given"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"status {answer.status_code}"
