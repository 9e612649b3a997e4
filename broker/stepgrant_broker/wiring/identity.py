"""Who the broker knows: enrolled keys, and the issuers of the trust file with their key sources."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.identity import kubernetes, oidc, spiffe_jwt, trust_file
from stepgrant_broker.identity.attesting import IssuedIdentity
from stepgrant_broker.identity.choosing import Identities
from stepgrant_broker.identity.enrolled import EnrolledIdentity
from stepgrant_broker.identity.jwt_verifier import Demands, JwtVerifier
from stepgrant_broker.identity.key_source import Fetch, KeySource
from stepgrant_broker.identity.trust import Trust, TrustedIssuer

if TYPE_CHECKING:
    from stepgrant_broker.api.token import Identities as Attests
    from stepgrant_broker.config import Settings
    from stepgrant_broker.domain.ports import Attested
    from stepgrant_broker.domain.reads import Reads
    from stepgrant_broker.wiring.clock import AdvancingClock

METHODS: Final = MappingProxyType(
    {method.profile.method: method for method in (oidc.METHOD, spiffe_jwt.METHOD, kubernetes.METHOD)}
)


def trust_of(settings: Settings) -> Trust:
    """The trust file's rules; without one, none. Raises `SettingsError` with every fault of the file."""
    if settings.trust_file is None:
        return Trust()
    try:
        return trust_file.read(settings.trust_file, METHODS, own_url=settings.public_url)
    except trust_file.TrustFileInvalid as invalid:
        raise SettingsError([f"{PREFIX}TRUST_FILE: {problem}" for problem in invalid.problems]) from None


def issued_identity(trust: Trust, issuer: TrustedIssuer) -> tuple[IssuedIdentity, KeySource]:
    """The adapter for one issuer, with the source of its keys. Raises `SettingsError`."""
    method = METHODS[issuer.method]
    keys = KeySource(issuer.name, _fetch(issuer), method.profile.uses)
    demands = Demands(issuer.issuer, issuer.audience, issuer.algorithms, issuer.max_lifetime_s)
    verifier = JwtVerifier(method.profile, demands, keys)
    return IssuedIdentity(issuer, method, trust.rules_of(issuer.name), verifier), keys


def _fetch(issuer: TrustedIssuer) -> Fetch:
    from stepgrant_broker.identity import key_fetching  # noqa: PLC0415 - loads httpx, which few brokers need

    place = issuer.keys
    if place.file is not None:
        return key_fetching.from_file(Path(place.file))
    try:
        tls = key_fetching.trusted_authorities(Path(issuer.ca_file) if issuer.ca_file is not None else None)
    except OSError as error:
        why = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise SettingsError(
            [f"{PREFIX}TRUST_FILE: [[issuer]] {issuer.name}: ca_file {issuer.ca_file} cannot be used: {why}"]
        ) from None
    if place.discovery is not None:
        return key_fetching.from_discovery(place.discovery, tls)
    if place.url is None:
        raise SettingsError([f"{PREFIX}TRUST_FILE: [[issuer]] {issuer.name}: no place for its keys"])
    return key_fetching.from_url(place.url, tls)


def open_identities(stack: AsyncExitStack, trust: Trust, settings: Settings, reads: Reads) -> Identities:
    """All identities of a broker; keys begin to be fetched, and fetching ends with `stack`. Raises `SettingsError`."""
    adapters = []
    for issuer in trust.issuers:
        adapter, keys = issued_identity(trust, issuer)
        keys.warm()
        stack.push_async_callback(keys.close)
        adapters.append(adapter)
    return Identities(EnrolledIdentity(reads, settings.public_url), adapters)


@dataclass(frozen=True, slots=True)
class _Behind:
    """Identities of workloads whose clocks stayed behind when the broker's was moved forward."""

    identities: Attests
    clock: AdvancingClock

    async def attest(self, token: str, token_type: str, now: int) -> Attested:
        """As `Identities.attest`, at the workload's time."""
        offset = self.clock.offset_ms
        seen = await self.identities.attest(token, token_type, now - offset)
        end = None if seen.not_after is None else seen.not_after + offset
        return replace(seen, not_after=end, dead_at=seen.dead_at + offset)


def identities_behind(clock: AdvancingClock) -> Callable[[Attests], Attests]:
    """For tests: tokens of workloads and issuers that do not know how far `clock` was moved."""
    return lambda identities: _Behind(identities, clock)
