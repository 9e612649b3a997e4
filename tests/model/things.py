"""The things that the plain model is about: decisions, calls, grants, approvals, steps and runs."""

from __future__ import annotations

from dataclasses import dataclass, field

LEASE, TTL_S, WINDOW, LEEWAY = 30_000, 60, 10_000, 5_000
ANSWER_S, VALID_S = 86_400, 900
RESUME = "~resume"


@dataclass(frozen=True)
class Decision:
    """What policy says of an action now. `effect`: the effect it consents to."""

    verdict: str = "allow"
    effect: str | None = None
    ttl_s: int = TTL_S
    redeem: str | None = None
    quorum: int = 1


@dataclass(frozen=True)
class Call:
    """What an agent asks of a step. `args` stand for the digest."""

    step: str
    effect: str
    args: int = 1
    retry: bool = False

    @property
    def tool(self) -> str:
        """Each step is a tool of its own; a hook's look is `<tool>.reconcile`."""
        tool, _, look = self.step.partition("~")
        return f"{tool}.reconcile" if look else tool


@dataclass
class Grant:
    """A permission and how it was used. `key` is its holder's."""

    step: str
    attempt: int
    epoch: int
    effect: str
    args: int
    required: bool
    at: int
    exp: int
    approval: Approval | None = None
    redeemed_at: int | None = None
    rid: str | None = None
    act_before: int = 0
    revoked: bool = False

    @property
    def unused(self) -> bool:
        """Provably unused: it had to be redeemed first, and was not."""
        return self.required and self.redeemed_at is None

    @property
    def dead_from(self) -> int:
        """§4: since when nothing can happen by it."""
        if not self.required:
            return self.exp + LEEWAY
        if self.redeemed_at is not None:
            return self.act_before + LEEWAY
        return 0 if self.revoked else self.exp + LEEWAY


@dataclass
class Approval:
    """A question to people. `of`: step, args and effect that it is bound to."""

    of: tuple[str, int, str]
    quorum: int
    answer_by: int
    status: str = "pending"
    yes: set[str] = field(default_factory=set)
    counts_from: int = 0
    back: bool = False
    spent_on: Grant | None = None

    def good(self, now: int, quorum: int) -> bool:
        """Approved, unused, unexpired, and nothing stricter is asked now."""
        free = self.spent_on is None or (self.spent_on.unused and self.spent_on.revoked)
        return self.status == "approved" and free and now < self.counts_from + VALID_S * 1000 and quorum <= self.quorum


@dataclass
class Step:
    """A step. `row`: undecided, granted, suspended, not_executed, failed, unknown, completed or in_doubt."""

    call: Call
    row: str = "undecided"
    attempt: int = 1
    grant: Grant | None = None
    started: bool = False

    @property
    def under_way(self) -> bool:
        """It was granted, and no outcome is known."""
        return self.row in {"granted", "suspended"}

    def drifts(self, call: Call) -> bool:
        """The effect is fixed at the first prepare, the arguments when anything was started."""
        return call.effect != self.call.effect or (call.args != self.call.args and self.started)

    @property
    def used(self) -> bool:
        """Perhaps used, and no outcome."""
        return self.under_way and self.grant is not None and not self.grant.unused


@dataclass
class Run:
    """A run. `key` is its holder's key; all keys that ever held it are in `keys`."""

    key: str
    input: object
    on_resume: str
    lease_until: int
    keys: set[str]
    state: str = "open"
    epoch: int = 1
    steps: dict[str, Step] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.state in {"completed", "failed", "cancelled"}

    def release(self) -> None:
        """Nobody holds the run any more: all that it held is revoked, and what may have happened once is in doubt."""
        for step in self.steps.values():
            if step.used and step.call.effect == "once":
                step.row = "in_doubt"
        for grant in self.grants:
            grant.revoked = True

    def has_doubt(self) -> bool:
        """Whether something may have happened and nobody said so: then, or once nobody holds the run."""
        once = [step for step in self.steps.values() if step.call.effect == "once"]
        return any(step.row == "in_doubt" or step.used for step in once)

    def void(self, step: str) -> None:
        """Another question: what people said of the old one counts no more; a denial does, should it come back."""
        for approval in self.approvals:
            if approval.of[0] == step and approval.status != "denied":
                approval.status = "void"

    def fence(self, key: str, epoch: int, now: int) -> set[str]:
        """Why this caller may not act; empty if it holds the run."""
        wrong = {"run_ended"} if self.ended else set()
        wrong |= {"quarantined"} if self.state == "quarantined" else set()
        if epoch != self.epoch or self.state != "open" or now >= self.lease_until:
            wrong |= {"stale_epoch"}
        return wrong | ({"wrong_holder", "stale_epoch"} if key != self.key else set())


def question(of: tuple[str, int, str], quorum: int, now: int) -> Approval:
    """A new question to people."""
    return Approval(of, quorum, now + ANSWER_S * 1000)
