"""What has happened in a run so far, as its entries tell it: no judgement here, and no guess.

Rules:
* Words are those of the protocol: a grant is *perhaps used* once its credential may have left the broker, unless it had
  to be redeemed first and was not; it is *dead* as its class says. Both are worked out here, never read from a flag.
* The leeway for other clocks is a setting that no entry holds, so it is taken as nothing: what is called alive here is
  alive under every setting.
* Entries change it in `folding.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from stepgrant.receipt import Event

REQUIRED: Final = "required"
CONFIRMED: Final = "confirmed"


@dataclass(slots=True)
class Grant:
    """One grant. Times are ms since the epoch; `None` until it happens."""

    jti: str
    step: str
    attempt: int
    epoch: int
    seq: int
    at: int
    exp: int
    tool: str
    effect: str
    redeem: str
    revocation: str
    outside: bool
    jkt: str
    approval: str | None
    audience: str = ""
    leased_at: int | None = None
    redeemed: int | None = None
    act_before: int = 0
    revoked: int | None = None
    confirmed: int | None = None
    failed: bool = False
    disclaimed: bool = False
    """A later start stated that no tool ever saw it."""

    @property
    def leased(self) -> bool:
        """Its lease is recorded, so its credential may leave."""
        return self.leased_at is not None

    @property
    def over(self) -> bool:
        """It was taken back, or never came to be."""
        return self.failed or self.revoked is not None

    @property
    def perhaps_used(self) -> bool:
        """Something may have been done with it."""
        released = not self.failed and (self.leased or not self.outside)
        # What names no server is for the tool itself, which acts whether or not anybody redeems.
        tells = self.redeem == REQUIRED and not self.audience.startswith("urn:stepgrant:tool:")
        return released and not self.disclaimed and (not tells or self.redeemed is not None)

    def dead(self, now: int) -> bool:
        """Nothing can come from it any more."""
        at = self.dead_at()
        return at is not None and at <= now

    def dead_at(self) -> int | None:
        """From when on nothing can come from it; `None` while only its issuer could say."""
        if self.failed:
            return self.at
        if self.redeem == REQUIRED:
            ends = self.act_before if self.redeemed is not None else self.revoked
            return self.exp if ends is None else ends
        return self.confirmed if self.revocation == CONFIRMED else self.exp


@dataclass(slots=True)
class Step:
    """One step. `excused` are attempts that somebody said were not executed; `finished` is the entry of its outcome."""

    key: str
    first: Event
    prepared: Event
    tool: str
    effect: str
    digest_c: str
    resource_c: str | None
    finished: Event | None = None
    finished_epoch: int = 0
    failed: Event | None = None
    doubt: Event | None = None
    adopted_epoch: int = 0
    replayed_epoch: int = 0
    excused: dict[int, Event] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)

    def unsettled(self) -> Grant | None:
        """The newest grant that was perhaps used and of which nobody has said what came of it."""
        if self.finished is not None or self.failed is not None:
            return None
        used = [grant for grant in self.grants if grant.perhaps_used and grant.attempt not in self.excused]
        return used[-1] if used else None


@dataclass(slots=True)
class Approval:
    """A question to people, with who said yes to it."""

    id: str
    step: str
    quorum: int
    answer_by: int
    valid_for: int
    yes: set[str] = field(default_factory=set)
    settled: str = "pending"
    settled_at: int = 0
    resumed_at: int = 0
    spent_by: str | None = None


@dataclass(slots=True)
class Story:
    """A run so far."""

    run: str
    one_clock: bool = True
    """False where clocks were bent: then an entry's time, which never falls, may be later than its broker's clock."""
    epoch: int = 0
    holder: str = ""
    status: str = "new"
    ended: Event | None = None
    holders: dict[int, str] = field(default_factory=dict)
    since: dict[int, int] = field(default_factory=dict)
    """When each epoch began."""
    steps: dict[str, Step] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    decided: dict[str, Event] = field(default_factory=dict)
    """The decision of each step that no grant has used yet."""
    decisions: dict[str, tuple[Event, str]] = field(default_factory=dict)
    """Each decision's entry and effect, by its name."""

    def known(self, key: str | None) -> Step | None:
        """The step of this key, or the one that it was adopted into."""
        return self.steps.get(self.aliases.get(key or "", key or ""))

    def grant_of(self, event: Event) -> Grant | None:
        """The grant that the entry is about."""
        return self.grants.get(str(event.part("grant").get("jti")))

    def granted(self, step: str | None, attempt: int | None) -> Grant | None:
        """The newest grant of an attempt."""
        known = self.known(step)
        return next((one for one in reversed(known.grants if known else []) if one.attempt == attempt), None)
