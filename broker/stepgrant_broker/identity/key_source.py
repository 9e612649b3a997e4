"""An issuer's keys: fetched, remembered and renewed; hardly an exchange waits for them, and no token makes us ask.

Rules:
* A set serves for its `max-age`, held between 1 minute and 1 hour (5 minutes where the answer names none). It is
  renewed in the background before that; after it, whoever comes waits for the fetch. So a key that the issuer has
  withdrawn is refused after at most an hour.
* An unknown `kid` is worth a fetch, at most one every 10 s for each issuer, and one at a time: a flood of made-up kids
  costs the issuer nothing. A new key is therefore seen within 10 s.
* If the issuer is out of reach, the last good set serves for one more hour; after that nothing of it is attested
  (`IssuerUnavailable`). Its tokens live an hour at most by default, so a longer memory would only serve thieves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import structlog

from stepgrant._keys import JoseError
from stepgrant_broker.domain.errors import IssuerUnavailable
from stepgrant_broker.identity.public_keys import IssuerKey, KeySetRefused, read_key_set

_RENEW_AT: Final = 0.8
_log = structlog.get_logger(__name__)


class FetchFailed(Exception):
    """The keys did not come; the text says why, without anything secret."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A key set as it came. `max_age_s`: how long the issuer says that it is good."""

    document: Mapping[str, object]
    max_age_s: int | None = None


Fetch: TypeAlias = Callable[[], Awaitable[Fetched]]


@dataclass(frozen=True, slots=True)
class Caching:
    """All in seconds; the module's rules say what for."""

    min_age_s: float = 60
    max_age_s: float = 3600
    default_age_s: float = 300
    floor_s: float = 10
    stale_s: float = 3600


class Keys(Protocol):
    """Finds the key of a token."""

    async def find(self, kid: str | None, alg: str) -> IssuerKey:
        """Raises `JoseError` (unknown_key), or `IssuerUnavailable` if the issuer's keys are out of reach."""
        ...


class KeySource:
    """The keys of one issuer.

    Args:
        name: of the issuer, for messages.
        fetch: gets the set; raises `FetchFailed`.
        uses: as of `read_key_set`.
        caching: how long and how often.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        fetch: Fetch,
        uses: frozenset[str | None],
        *,
        caching: Caching | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._uses = uses
        self._caching = caching or Caching()
        self._clock = clock
        self._keys: tuple[IssuerKey, ...] | None = None
        self._fetched_at = self._fresh_until = self._tried_at = float("-inf")
        self._failed: str | None = None
        self._flight: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, alg: str) -> IssuerKey:
        """As `Keys`."""
        known = self._look(kid, alg)
        now = self._clock()
        if known is None or (now >= self._fresh_until and self._failed is None):
            await self._refreshed(now)
        elif now >= self._fetched_at + (self._fresh_until - self._fetched_at) * _RENEW_AT:
            self._take_off(now)
        if self._keys is None or self._clock() >= self._fresh_until + self._caching.stale_s:
            raise IssuerUnavailable(
                f"the keys of issuer {self._name} are out of reach: {self._failed or 'they are being fetched'}",
                retry_after_ms=int(self._caching.floor_s * 1000),
            )
        known = self._look(kid, alg)
        if known is None and self._failed is not None:
            raise IssuerUnavailable(
                f"issuer {self._name} is out of reach, so this key cannot be looked up: {self._failed}",
                retry_after_ms=int(self._caching.floor_s * 1000),
            )
        if known is None:
            raise JoseError("unknown_key", f"issuer {self._name} publishes no such key for this algorithm")
        return known

    def warm(self) -> None:
        """Fetch in the background, so that the first exchange finds the keys."""
        self._take_off(self._clock())

    async def close(self) -> None:
        """Stop a fetch that is under way."""
        if self._flight is not None:
            self._flight.cancel()
            with suppress(asyncio.CancelledError):
                await self._flight
            self._flight = None

    def _look(self, kid: str | None, alg: str) -> IssuerKey | None:
        fits = [key for key in self._keys or () if alg in key.algorithms]
        if kid is not None:
            fits = [key for key in fits if key.kid == kid]
        # Without a kid only one key can be meant; trying several would let old keys stand in for new ones.
        return fits[0] if len(fits) == 1 else None

    async def _refreshed(self, now: float) -> None:
        self._take_off(now)
        if self._flight is not None:
            # Shielded: a caller who goes away must not end the fetch that others wait for.
            await asyncio.shield(self._flight)

    def _take_off(self, now: float) -> None:
        if self._flight is not None and not self._flight.done():
            return
        self._flight = None
        if now >= self._tried_at + self._caching.floor_s:
            self._tried_at = now
            self._flight = asyncio.create_task(self._fly())

    async def _fly(self) -> None:
        try:
            fetched = await self._fetch()
            keys = read_key_set(fetched.document, self._uses)
        except (FetchFailed, KeySetRefused) as error:
            self._failed = str(error)
            _log.warning("identity_keys_not_fetched", issuer=self._name, why=self._failed)
            return
        caching = self._caching
        age = caching.default_age_s if fetched.max_age_s is None else fetched.max_age_s
        self._keys, self._failed, self._fetched_at = keys, None, self._clock()
        self._fresh_until = self._fetched_at + min(max(age, caching.min_age_s), caching.max_age_s)
