"""The broker's answers as closed, typed values (`protocol.md` §2). Unknown members are ignored: answers only grow.

Times are milliseconds since the epoch, of the broker's clock; compare them with each other, never with this machine's.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar

import msgspec

from stepgrant._http import Answer

T = TypeVar("T")


class Member(msgspec.Struct, frozen=True):
    """Base of everything that the broker answers."""


class IssuedGrant(Member, frozen=True):
    """The permission record."""

    jti: str
    issued_at: int
    expires_at: int
    audience: str
    issuer: str
    effect: str
    redeem: str
    idempotency_key: str


class IssuedCredential(Member, frozen=True):
    """The secret, on its one way in. `fields` by kind: jwt `token`; static `value` and `header`."""

    kind: str
    fields: dict[str, str]
    hosts: list[str] = []
    revocation: str = "none"

    def __repr__(self) -> str:
        """Masked."""
        return f"IssuedCredential({self.kind}, <masked>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential can be neither pickled nor copied")

    def __copy__(self) -> NoReturn:
        """As `__reduce__`, which msgspec's own copying does not ask."""
        raise TypeError("a credential can be neither pickled nor copied")


class Failure(Member, frozen=True):
    """A recorded failure."""

    status: str | None = None
    error: str | None = None


class Doubt(Member, frozen=True):
    """A step that may already have happened."""

    step: str
    attempt: int
    why: str | None = None
    options: list[str] = []
    reconciles: int = 0
    idempotency_key: str = ""
    tool: str = ""


class Run(Member, frozen=True, tag_field="outcome", tag="run"):
    """Do it: here is the credential."""

    step: str
    attempt: int
    grant: IssuedGrant
    credential: IssuedCredential


class Ready(Member, frozen=True, tag_field="outcome", tag="run"):
    """It would run."""

    step: str
    attempt: int


class Replay(Member, frozen=True, tag_field="outcome", tag="replay"):
    """It has an outcome already."""

    step: str
    attempt: int
    result: Any = None
    withheld: bool = False
    failure: Failure | None = None


class Denied(Member, frozen=True, tag_field="outcome", tag="denied"):
    """Policy, or a person, says no."""

    reasons: list[str] = []
    decision_id: str | None = None


class ApprovalRequired(Member, frozen=True, tag_field="outcome", tag="approval_required"):
    """A person must answer first."""

    approval_id: str
    answer_by: int | None = None


class InDoubt(Doubt, frozen=True, tag_field="outcome", tag="in_doubt"):
    """The outcome of `step` is not known. `blocked`: the call is another one, which has to wait for that."""

    blocked: bool = False


class SuspectedDuplicate(Member, frozen=True, tag_field="outcome", tag="suspected_duplicate"):
    """It equals a completed step of an earlier epoch. `step` is the one that people are asked about."""

    step: str | None = None
    of: str | None = None
    options: list[str] = []


class Recorded(Member, frozen=True, tag_field="outcome", tag="recorded"):
    """The recorded step's result is stored."""

    step: str


Outcome: TypeAlias = Run | Replay | Denied | ApprovalRequired | InDoubt | SuspectedDuplicate
Prepared: TypeAlias = Ready | Replay | Denied | ApprovalRequired | InDoubt | SuspectedDuplicate
RecordOutcome: TypeAlias = Recorded | Replay


class Opened(Member, frozen=True):
    """A run that this process holds now."""

    run: str
    run_key: str
    agent: str
    epoch: int
    resumed: bool
    lease_ms: int
    input: Any = None
    has_input: bool = False
    history: dict[str, Any] = {}
    in_doubt: list[Doubt] = []


class Queued(Member, frozen=True):
    """A run that is stored for whoever comes to run it."""

    run: str
    run_key: str
    state: str
    queued: bool


class ListedRun(Member, frozen=True):
    """A run as it is listed. `resumable_at`: None while that takes a person."""

    id: str
    key: str
    agent: str
    state: str
    epoch: int
    tries: int = 0
    park_reason: str | None = None
    park_detail: str | None = None
    resumable: bool = False
    resumable_at: int | None = None


class RunPage(Member, frozen=True):
    """A page of runs. `now`: the broker's clock."""

    runs: list[ListedRun]
    now: int
    next: str | None = None


class Evidence(Member, frozen=True):
    """The part of a receipt that tells of a run that is over."""

    entries: list[str]
    disclosures: list[Any]


class Settled(Member, frozen=True):
    """The answer to complete, fail, suspend and reconcile."""

    state: str
    in_doubt: Doubt | None = None


class ShownStep(Member, frozen=True):
    """A step as it is read. `tool`: of a recorded step its name."""

    key: str
    state: Literal[
        "prepared",
        "denied",
        "awaiting_approval",
        "started",
        "suspended",
        "failed",
        "in_doubt",
        "completed",
        "recorded",
        "adopted",
    ]
    tool: str = ""
    resource: str | None = None


class Held(Member, frozen=True):
    """The answer to a heartbeat, a park and an end."""

    state: str


class Unreadable(Exception):
    """What came is not what the call answers."""


_decoders: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}


def read(answer: Answer, kind: Any) -> Any:  # noqa: ANN401  # `kind` may be a union, for which Python has no type
    """The answer's body as `kind`, one of the types above. Raises `Unreadable`."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The decoder's text may quote a value of the body.
        raise Unreadable("the answer is not what this call answers") from None
