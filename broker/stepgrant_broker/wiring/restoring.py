"""Whether the database is the newest one, and what is done when somebody says that it is all that is left.

`stepgrant db restored` runs while no broker does: each of them is refused at its start until it came to its end, and
one that ran all the time keeps no head under the log's old name any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepgrant_broker.config import PREFIX, SettingsError
from stepgrant_broker.domain.restoring import StoreNotBehind, base_of, follows, name_after
from stepgrant_broker.usecases.restored import Restore, Restored, restore

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepgrant_broker.config import Settings
    from stepgrant_broker.ledger.seen import Contradiction
    from stepgrant_broker.wiring.broker import Broker
    from stepgrant_broker.wiring.databases import AnyStore


async def origin_of(settings: Settings, store: AnyStore) -> str:
    """The log's name. Raises `SettingsError` for another one than it has, or had before it was restored."""
    origin = await store.log_origin(settings.proposed_origin)
    if settings.log_origin not in {None, origin, base_of(origin)}:
        raise SettingsError([f"{PREFIX}LOG_ORIGIN: this database's log is {origin!r}, for ever; say that, or nothing"])
    return origin


@dataclass(frozen=True, slots=True)
class Behind:
    """A store that is behind: what says so, and what its log is called from now on."""

    why: tuple[str, ...]
    size: int
    known_size: int
    previous: str
    origin: str

    def restore(self, note: str) -> Restore:
        """The restore of it."""
        return Restore(self.size, self.known_size, self.previous, self.origin, note)


async def look_behind(broker: Broker) -> Behind:
    """What is to be restored. Raises `StoreNotBehind`, and what `Seen.contradictions` raises."""
    found = await broker.seen.contradictions(ask_witnesses=True)
    size = (await broker.store.log_tail(1)).head.size
    if not found:
        raise StoreNotBehind(
            f"nothing is to be restored: the store has {size} entries in its log, and all that was seen of it outside"
        )
    origin = await broker.store.log_origin(broker.settings.proposed_origin)
    known_size = max(one.known.size for one in found)
    return Behind(tuple(one.why for one in found), size, known_size, origin, _name(origin, found))


def _name(origin: str, found: list[Contradiction]) -> str:
    if all(follows(origin, one.known.origin) for one in found):
        # A restore that was broken off just before its end: it has its name already.
        return origin
    ours = [one.known.origin for one in found if base_of(one.known.origin) == base_of(origin)]
    return name_after(origin, *ours)


async def restore_store(
    broker: Broker, behind: Behind, note: str, watch: Callable[[Restored], None]
) -> tuple[Restored, str]:
    """Take the store as it is; what was done, and the log's new verifier key.

    Whatever breaks it off, the same call again brings it to its end.
    """
    done = await restore(broker.ports, broker.store, behind.restore(note), await broker.tenants(), watch)
    return done, await broker.seen.settle(behind.origin)
