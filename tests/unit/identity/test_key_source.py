"""When keys are fetched, how long they serve, and what happens when they do not come. The clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from forging import es256
from stepgrant._keys import JoseError
from stepgrant_broker.domain.errors import IssuerUnavailable
from stepgrant_broker.identity.key_source import Fetched, FetchFailed, KeySource

SIG: frozenset[str | None] = frozenset({"sig", None})


def jwk(kid: str) -> dict[str, Any]:
    return {**es256().jwk, "kid": kid, "alg": "ES256", "use": "sig"}


@dataclass
class Issuer:
    """An issuer with its keys; `now` is the time for whoever caches them."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [jwk("old")])
    max_age_s: int | None = None
    now: float = 1000.0
    fetches: int = 0
    down: str = ""
    gate: asyncio.Event | None = None

    async def fetch(self) -> Fetched:
        self.fetches += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise FetchFailed(self.down)
        return Fetched({"keys": list(self.keys)}, self.max_age_s)

    def source(self) -> KeySource:
        return KeySource("ci", self.fetch, SIG, clock=lambda: self.now)


async def unknown(find: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(JoseError) as caught:
        await find()
    assert caught.value.reason == "unknown_key"


async def settled() -> None:
    """Let a background fetch end."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_fetch_serves_many() -> None:
    issuer = Issuer()
    keys = issuer.source()
    found = await asyncio.gather(*[keys.find("old", "ES256") for _ in range(50)])

    assert (issuer.fetches, {key.kid for key in found}) == (1, {"old"})


async def test_unknown_kids_cost_one_fetch_in_ten_seconds() -> None:
    issuer = Issuer()
    keys = issuer.source()
    await keys.find("old", "ES256")
    for number in range(100):
        await unknown(lambda number=number: keys.find(f"made-up-{number}", "ES256"))  # type: ignore[misc]
    assert issuer.fetches == 1
    issuer.now += 10
    for number in range(100):
        await unknown(lambda number=number: keys.find(f"made-up-{number}", "ES256"))  # type: ignore[misc]
    assert issuer.fetches == 2


async def test_a_rotated_key_is_seen_within_the_floor() -> None:
    issuer = Issuer()
    keys = issuer.source()
    await keys.find("old", "ES256")
    issuer.keys = [jwk("new")]
    await unknown(lambda: keys.find("new", "ES256"))
    issuer.now += 10
    assert (await keys.find("new", "ES256")).kid == "new"
    await unknown(lambda: keys.find("old", "ES256"))


@pytest.mark.parametrize(("max_age_s", "served_s"), [(None, 300), (0, 60), (120, 120), (86_400, 3600)])
async def test_a_removed_key_is_refused_after_a_bounded_max_age(max_age_s: int | None, served_s: int) -> None:
    issuer = Issuer(max_age_s=max_age_s)
    keys = issuer.source()
    await keys.find("old", "ES256")
    issuer.keys = [jwk("new")]
    issuer.now += served_s * 0.79
    assert (await keys.find("old", "ES256")).kid == "old"
    assert issuer.fetches == 1
    issuer.now += served_s * 0.21
    await unknown(lambda: keys.find("old", "ES256"))
    assert issuer.fetches == 2


async def test_keys_are_renewed_in_the_background_before_they_are_old() -> None:
    issuer = Issuer()
    keys = issuer.source()
    await keys.find("old", "ES256")
    issuer.gate = asyncio.Event()
    issuer.now += 300 * 0.8
    async with asyncio.timeout(30):
        assert (await keys.find("old", "ES256")).kid == "old"
    issuer.gate.set()
    await settled()
    issuer.now += 299
    assert (await keys.find("old", "ES256")).kid == "old"
    assert issuer.fetches == 2


async def test_the_last_good_set_serves_an_hour_more_and_then_nothing_does() -> None:
    issuer = Issuer()
    keys = issuer.source()
    await keys.find("old", "ES256")
    issuer.down = "HTTP 500"
    issuer.now += 300 + 3599
    assert (await keys.find("old", "ES256")).kid == "old"
    with pytest.raises(IssuerUnavailable, match="HTTP 500"):
        await keys.find("new", "ES256")
    issuer.now += 1
    with pytest.raises(IssuerUnavailable, match="issuer ci are out of reach: HTTP 500") as caught:
        await keys.find("old", "ES256")
    assert caught.value.retry_after_ms == 10_000
    issuer.down, issuer.now = "", issuer.now + 10
    await asyncio.gather(keys.find("old", "ES256"), return_exceptions=True)
    await settled()
    assert (await keys.find("old", "ES256")).kid == "old"


async def test_while_it_is_down_the_issuer_is_asked_once_in_ten_seconds_and_nobody_waits_for_it() -> None:
    issuer = Issuer()
    keys = issuer.source()
    await keys.find("old", "ES256")
    issuer.down, issuer.now = "no answer", issuer.now + 300
    await keys.find("old", "ES256")
    before, issuer.gate = issuer.fetches, asyncio.Event()
    for _ in range(10):
        issuer.now += 1
        async with asyncio.timeout(30):
            await keys.find("old", "ES256")
    await settled()
    assert issuer.fetches == before + 1
    await keys.close()


async def test_without_any_keys_nothing_is_attested_and_the_floor_holds() -> None:
    issuer = Issuer(down="connection refused")
    keys = issuer.source()
    for _ in range(20):
        with pytest.raises(IssuerUnavailable, match="connection refused"):
            await keys.find("old", "ES256")
    assert issuer.fetches == 1


async def test_a_set_that_must_not_be_used_is_as_good_as_none_and_does_not_replace_the_last() -> None:
    issuer = Issuer()
    keys = issuer.source()
    await keys.find("old", "ES256")
    right, issuer.keys = issuer.keys, [{**jwk("new"), "d": "secret"}]
    issuer.now += 300
    assert (await keys.find("old", "ES256")).kid == "old"
    with pytest.raises(IssuerUnavailable, match="private or symmetric key"):
        await keys.find("new", "ES256")
    assert right


async def test_whoever_goes_away_does_not_end_the_fetch_of_the_others() -> None:
    issuer = Issuer(gate=asyncio.Event())
    keys = issuer.source()
    first = asyncio.create_task(keys.find("old", "ES256"))
    second = asyncio.create_task(keys.find("old", "ES256"))
    await settled()
    first.cancel()
    await settled()
    assert issuer.gate is not None
    issuer.gate.set()
    assert (await second).kid == "old"
    assert issuer.fetches == 1


async def test_closing_ends_a_fetch_under_way() -> None:
    issuer = Issuer(gate=asyncio.Event())
    keys = issuer.source()
    keys.warm()
    await settled()
    async with asyncio.timeout(30):
        await keys.close()


async def test_without_a_kid_only_one_key_can_be_meant() -> None:
    issuer = Issuer()
    keys = issuer.source()
    assert (await keys.find(None, "ES256")).kid == "old"
    issuer.keys.append(jwk("new"))
    issuer.now += 300
    await unknown(lambda: keys.find(None, "ES256"))
    await unknown(lambda: keys.find("old", "RS256"))
