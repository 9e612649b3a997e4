"""What Rego may answer, as a closed union (`protocol.md` §5).

Rules:
* A decision is `Allow`, `Deny` or `RequireApproval`; never a boolean, never `None`.
* deny beats require_approval beats allow; an allow needs a positive reason. `policy/contract.py` reads the raw
  answer and closes every gap (undefined, wrong type, unknown member, non-finite number) into an error or a `Deny`.
* Only policy chooses the issuer, its parameters and an effect looser than `once`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

Duplicate: TypeAlias = Literal["ask", "replay", "run"]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

MICRO: Final = 1_000_000
"""Meters are kept as whole millionths, so that taking one back leaves exactly nothing behind."""


class Effect(StrEnum):
    """The class of an action. Unknown tools are `once`; anything looser needs the consent of policy."""

    READ = "read"
    IDEMPOTENT = "idempotent"
    ONCE = "once"

    @property
    def effectful(self) -> bool:
        """True when the action may change something at its target."""
        return self is not Effect.READ


EFFECTS: Final[Mapping[str, Effect]] = {effect.value: effect for effect in Effect}
"""By their words; `Effect(word)` costs twenty times more."""


class RedeemMode(StrEnum):
    """Whether a resource server must redeem a grant before it acts (`protocol.md` §3)."""

    REQUIRED = "required"
    OPTIONAL = "optional"

    @classmethod
    def default_for(cls, effect: Effect) -> RedeemMode:
        """`required` for effects, `optional` for reads."""
        return cls.REQUIRED if effect.effectful else cls.OPTIONAL


REDEEM_MODES: Final[Mapping[str, RedeemMode]] = {mode.value: mode for mode in RedeemMode}


class GrantSpec(Struct, frozen=True):
    """What a grant may be, as policy said it; `None` means the default of the broker or issuer.

    `duplicate`: what to do with a call that may be a completed step once more.
    """

    issuer: str = "jwt"
    effect: Effect | None = None
    ttl_s: int | None = None
    redeem: RedeemMode | None = None
    audience: str | None = None
    params: Mapping[str, Json] = NOTHING
    digest_only: bool = False
    duplicate: Duplicate = "ask"


@dataclass(frozen=True, slots=True)
class ApprovalSpec:
    """Who must answer: at least `quorum` distinct people of `groups` (empty: any approver). Times in seconds."""

    groups: tuple[str, ...] = ()
    quorum: int = 1
    answer_within_s: int = 86_400
    valid_for_s: int = 900

    def not_stricter_than(self, asked: ApprovalSpec) -> bool:
        """True when an answer given to `asked` also answers this: the same groups, a quorum not higher."""
        return frozenset(self.groups) == frozenset(asked.groups) and self.quorum <= asked.quorum


class Allow(Struct, frozen=True):
    """Policy consents, for these reasons (never empty), to this grant; `meters` in millionths."""

    reasons: tuple[str, ...]
    grant: GrantSpec
    labels: tuple[str, ...] = ()
    meters: Mapping[str, int] = NOTHING


class Deny(Struct, frozen=True):
    """Policy refuses, for these reasons (never empty)."""

    reasons: tuple[str, ...]


class RequireApproval(Struct, frozen=True):
    """Policy wants people to answer; once they did, the rest reads as an `Allow`."""

    reasons: tuple[str, ...]
    approval: ApprovalSpec
    grant: GrantSpec
    labels: tuple[str, ...] = ()
    meters: Mapping[str, int] = NOTHING

    def met(self, approval_id: str) -> Allow:
        """The allow that this decision becomes once approval `approval_id` answers it."""
        return Allow((*self.reasons, f"approved:{approval_id}"), self.grant, self.labels, self.meters)


Decision: TypeAlias = Allow | Deny | RequireApproval
DecisionEffect: TypeAlias = Literal["allow", "deny", "require_approval"]


def effect_of(decision: Decision) -> DecisionEffect:
    """The word that stands for the decision in entries and answers."""
    match decision:
        case Allow():
            return "allow"
        case Deny():
            return "deny"
        case RequireApproval():
            return "require_approval"


class Decided(Struct, frozen=True):
    """A decision together with what proves it later: revision, id, engine, and the exact input bytes (JCS)."""

    decision: Decision
    revision: str
    decision_id: str
    engine: str
    input: bytes
