"""The signer that the settings name, with their times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.publishing import Timing

if TYPE_CHECKING:
    from stepgrant_broker.config import Settings
    from stepgrant_broker.domain.ports import Clock
    from stepgrant_broker.signing.transit import TransitSigner
    from stepgrant_broker.vault.client import Vault

HOUR_MS: Final = 3_600_000


def timing_of(settings: Settings) -> Timing:
    """How long keys settle and overlap."""
    return Timing(settle_ms=1000 * settings.key_settle_s, heads_overlap_ms=HOUR_MS * settings.head_overlap_h)


def signer_of(settings: Settings, vault: Vault | None, clock: Clock) -> LocalSigner | TransitSigner:
    """The keys that sign. Raises `SignerUnavailable` when local ones cannot be used; Vault's are asked when needed."""
    if settings.signer == "local" or vault is None:
        return LocalSigner.open(settings.keys_folder, clock=clock, timing=timing_of(settings))
    from stepgrant_broker.signing.transit import REFRESH_S, TransitSigner  # noqa: PLC0415 - an extra

    return TransitSigner(
        vault,
        settings.transit_mount,
        settings.transit_keys,
        clock,
        refresh_s=min(REFRESH_S, settings.key_settle_s / 4),
        settle_s=settings.key_settle_s,
        timing=timing_of(settings),
    )
