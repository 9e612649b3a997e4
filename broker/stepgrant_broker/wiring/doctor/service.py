"""The broker that should be running: does it answer under its public name, is it this one, is it ready, its time.

Whether it is this one is told by its public keys: another broker at that address would be examined in its place.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import httpx

from stepgrant._errors import ConfigurationError
from stepgrant._http import authorities
from stepgrant_broker.config import PREFIX
from stepgrant_broker.wiring.doctor.clocks import apart
from stepgrant_broker.wiring.doctor.findings import Area, Found

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings
    from stepgrant_broker.wiring.broker import Broker

PATIENCE_S: Final = 10.0
SECOND_MS: Final = 1000

SERVICE: Final = Area("service")


async def service(settings: Settings, broker: Broker | None) -> AsyncIterator[Found]:
    """Ask the running broker as an agent would reach it. `broker`: this installation's, where it could be opened."""
    url = settings.public_url
    try:
        async with httpx.AsyncClient(verify=authorities(), timeout=PATIENCE_S, trust_env=False) as client:
            before = time.time()
            alive = await client.get(f"{url}/healthz")
            after = time.time()
            ready = await client.get(f"{url}/readyz")
            keys = await client.get(f"{url}/.well-known/jwks.json")
    except ConfigurationError as error:
        yield SERVICE.fail("running", str(error), "name a PEM file of certificates that exists, or unset it")
        return
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
    if broker is None:
        yield SERVICE.unseen(
            "running", f"a broker answers at {url}; whether it is this one is not known without its keys"
        )
    elif _kids(keys).isdisjoint(key.kid for key in await broker.ports.signer.public_keys("grants")):
        yield SERVICE.fail(
            "running", f"what answers at {url} signs with other keys: it is not the broker of these settings",
            f"set {PREFIX}PUBLIC_URL and {PREFIX}DATA_DIR to those of one broker; the doctor needs its environment",
        )  # fmt: skip
        return
    else:
        yield SERVICE.ok("running", f"it answers at {url}")
    if ready.status_code == httpx.codes.OK:
        yield SERVICE.ok("ready", "store, policy and signer answer")
    else:
        yield SERVICE.fail(
            "ready", f"not ready: {_failed(ready)}", "the findings here, and not_ready in its log, say why"
        )
    yield _clock(alive, before, after, settings.leeway_ms / SECOND_MS)


def _clock(answer: httpx.Response, before: float, after: float, leeway_s: float) -> Found:
    """Its time as HTTP tells it: in whole seconds, so that a second more is forgiven."""
    try:
        there = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return SERVICE.unseen("clock", "its answers tell no time", "does a proxy take `Date` away?")
    ahead = apart(there, before, after)
    if abs(ahead) > leeway_s + 1:
        return SERVICE.fail("clock", f"its clock is {ahead:.0f} s from this host's", "set both by NTP")
    return SERVICE.ok("clock", "it shows this host's time")


def _kids(answer: httpx.Response) -> set[str]:
    try:
        return {str(key["kid"]) for key in answer.json()["keys"]}
    except (ValueError, KeyError, TypeError):
        return set()


def _failed(answer: httpx.Response) -> str:
    try:
        checks = answer.json()["checks"]
        return ", ".join(sorted(str(name) for name, state in checks.items() if state != "ok")) or "no reason given"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"status {answer.status_code}"
