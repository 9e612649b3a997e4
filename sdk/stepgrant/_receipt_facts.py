"""What a verified receipt says, as facts: who acted, what was decided, who approved, and the life of each credential.

These are shapes only; `_receipt_gather` fills them. Rules:

* Times are milliseconds since the epoch, of the broker's clock.
* `None` means that the receipt does not say it: it was not disclosed, was erased, or is in entries that are not here.
* A credential itself is never in a receipt. What is here is its grant, the record of what was permitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stepgrant.canonical import JsonValue


@dataclass(frozen=True, slots=True)
class Actor:
    """Who caused something. `kind`: workload, person, resource_server or broker.

    `id` is the name by which the broker enrolled it, which an entry says in clear: of a person who answered, and of a
    workload if the entry by which it opened or resumed the run is in the receipt. `subject` is disclosed, or `None`.
    Of a workload also: the agent that it said it runs, the thumbprint of the key that it held, and how it was attested.
    """

    kind: str
    subject: str | None = None
    id: str | None = None
    agent: str | None = None
    version: str | None = None
    jkt: str | None = None
    epoch: int | None = None
    attested: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy answered. `policy`: the text (path to content) of `revision`; `input` is what it was asked."""

    at: int
    seq: int
    step: str | None
    attempt: int | None
    phase: str | None
    effect: str | None
    reasons: tuple[str, ...]
    decision_id: str | None
    revision: str | None
    engine: str | None
    policy: Mapping[str, str] | None = field(default=None, repr=False)
    input: JsonValue = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One person's answer to a question. `verdict`: approve or deny."""

    at: int
    who: Actor
    verdict: str | None
    note: JsonValue = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A question to people about one exact action, and what they said.

    `settled` is what the answers came to (approved, denied, or None while it waits); `used_by` the grant that spent it.
    """

    id: str
    step: str | None
    asked_at: int | None
    groups: tuple[str, ...]
    quorum: int | None
    answer_by: int | None
    why_again: str | None
    answers: tuple[Answer, ...]
    settled: str | None
    used_by: str | None

    @property
    def approved_by(self) -> tuple[Actor, ...]:
        """Those who said yes."""
        return tuple(one.who for one in self.answers if one.verdict == "approve")


@dataclass(frozen=True, slots=True)
class Redemption:
    """A resource server redeemed the grant and had to begin before `act_before`."""

    at: int
    server: str | None
    act_before: int | None


@dataclass(frozen=True, slots=True)
class Grant:
    """The life of one credential, from its issue to its end.

    `revocation` is what its issuer can do: confirmed (says when it is dead), expiry, or none (it cannot be revoked).
    `decision` is the one that it was issued under, `approval` the id of the approval that it spent.
    """

    jti: str
    step: str | None
    attempt: int | None
    epoch: int | None
    issuer: str | None
    audience: str | None
    issued_at: int | None
    expires_at: int | None
    redeem: str | None
    revocation: str | None
    holder: Actor | None
    decision: Decision | None
    approval: str | None
    redemptions: tuple[Redemption, ...]
    revoked_at: int | None
    cause: str | None
    unused: bool
    confirmed_at: int | None
    failed: str | None

    @property
    def end(self) -> str:
        """How it ended, as far as this receipt goes.

        failed: none was released. open: it was not taken back. cannot_be_revoked: whoever has the secret still has it.
        confirmed: the issuer said that it is dead, at `confirmed_at`. unconfirmed: the issuer has not said so yet.
        refused: taken back, nobody can redeem it any more. expires: taken back, but a copy may work until `expires_at`.
        """
        if self.failed is not None:
            return "failed"
        if self.revocation == "none":
            return "cannot_be_revoked"
        if self.revoked_at is None:
            return "open"
        if self.revocation == "confirmed":
            return "unconfirmed" if self.confirmed_at is None else "confirmed"
        return "refused" if self.redeem == "required" else "expires"


@dataclass(frozen=True, slots=True)
class Step:
    """One intended action of the run. `position` counts from 1; `status` is its outcome, None while there is none.

    `who` are those who acted in it, each once: workloads, and people who settled a doubt or answered.
    """

    key: str
    position: int | None
    tool: str | None
    resource: JsonValue
    args: JsonValue
    effect: str | None
    who: tuple[Actor, ...]
    decisions: tuple[Decision, ...]
    approvals: tuple[Approval, ...]
    grants: tuple[Grant, ...]
    status: str | None
    result: JsonValue


@dataclass(frozen=True, slots=True)
class Erased:
    """Keys and values of the run were destroyed: what its commitments stand for cannot be shown by anybody."""

    at: int
    who: Actor
    cause: str | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is not in the receipt. `code` is stable; `text` is for people."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it, in the order of the entries. `revisions`: of the policies that decided, in order of the text."""

    steps: tuple[Step, ...]
    decisions: tuple[Decision, ...]
    approvals: tuple[Approval, ...]
    grants: tuple[Grant, ...]
    erased: Erased | None
    revisions: tuple[str, ...]
