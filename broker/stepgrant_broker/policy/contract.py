"""What a policy engine answered, closed into a decision (`protocol.md` §5).

Rules:
* One reader for every engine. It says `Allow` only for an answer in which every member is known, well typed and within
  its bounds; an undefined answer is a denial, and everything else is `PolicyUnavailable`, never a guess.
* Members that are not mentioned stay `None`: the broker's defaults are the strict ones.
* Reasons are plain snake_case. A colon is the broker's own (`approved:<id>`), so no policy can claim an approval.
* A denial is a denial whatever stands beside its reasons, as long as the members are known.
* Whole numbers may be written `60` or `60.0`: engines differ in how they print one and the same number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NoReturn, TypeVar

from stepgrant import canonical
from stepgrant_broker.domain.decisions import (
    EFFECTS,
    MICRO,
    REDEEM_MODES,
    Allow,
    ApprovalSpec,
    Decision,
    Deny,
    Duplicate,
    Effect,
    GrantSpec,
    Json,
    RedeemMode,
    RequireApproval,
)
from stepgrant_broker.domain.errors import PolicyUnavailable

MAX_BYTES: Final = 65_536
MAX_DEPTH: Final = 16
KEPT: Final = 64
MAX_REASONS: Final = 32
MAX_LABELS: Final = 32
MAX_METERS: Final = 16
MAX_METER: Final = 1_000_000_000
"""Units per step. In millionths this is 1e15, so that a run's totals stay exact JSON integers (2^53) for a while."""
MAX_GROUPS: Final = 16
MAX_QUORUM: Final = 10
MAX_TTL_S: Final = 300
MAX_ANSWER_WITHIN_S: Final = 2_592_000
MAX_VALID_FOR_S: Final = 86_400
MAX_PARAMS: Final = 32
MAX_PARAMS_BYTES: Final = 8_192

REASON: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
METER: Final = REASON
LABEL: Final = re.compile(r"[a-z][a-z0-9_]*(?::[A-Za-z0-9._/-]+)?")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
AUDIENCE: Final = re.compile(r"[\x21-\x7e]+")
SHORT: Final = 64
MEDIUM: Final = 128
LONG: Final = 512

TOP: Final = frozenset({"effect", "reasons", "grant", "labels", "meters", "approval"})
GRANT: Final = frozenset({"issuer", "effect", "ttl", "redeem", "audience", "params", "digest_only", "duplicate"})
_DEFAULT: Final = GrantSpec()
_DUPLICATES: Final[Mapping[str, Duplicate]] = {"ask": "ask", "replay": "replay", "run": "run"}
T = TypeVar("T")
APPROVAL: Final = frozenset({"groups", "quorum", "answer_within", "valid_for"})


def parse(raw: bytes | None) -> Decision:
    """The decision in an engine's raw JSON answer; `None` (undefined) is a `Deny`. Raises `PolicyUnavailable`."""
    if raw is None:
        return Deny(("policy_undefined",))
    return _parsed(raw)


@lru_cache(maxsize=KEPT)
def _parsed(raw: bytes) -> Decision:
    """The same bytes are the same decision, and a policy gives few different answers: no call changes what it gets."""
    try:
        answer = canonical.loads(raw, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    except canonical.CanonicalError as error:
        # The code only: the detail of a parse error is about bytes that a policy made from arguments.
        raise PolicyUnavailable(f"the policy engine's answer cannot be read ({error.code})") from None
    members = _object(answer, "decision", TOP)
    effect = members.get("effect")
    reasons = _texts(members.get("reasons"), "reasons", REASON, SHORT, MAX_REASONS)
    if not reasons:
        _refuse("reasons", "must name at least one reason")
    if effect == "deny":
        return Deny(reasons)
    grant = _grant(members.get("grant", {}))
    labels = _texts(members.get("labels", []), "labels", LABEL, MEDIUM, MAX_LABELS)
    meters = _meters(members.get("meters", {}))
    if effect == "require_approval":
        return RequireApproval(reasons, _approval(members.get("approval", {})), grant, labels, meters)
    if effect != "allow":
        _refuse("effect", "must be allow, deny or require_approval")
    if "approval" in members:
        # Whoever wrote it expects that a person is asked; an allow would not ask.
        _refuse("approval", "belongs to require_approval only")
    return Allow(reasons, grant, labels, meters)


def _grant(value: object) -> GrantSpec:
    members = _object(value, "grant", GRANT)
    digest_only = members.get("digest_only", False)
    if not isinstance(digest_only, bool):
        _refuse("grant.digest_only", "must be true or false")
    return GrantSpec(
        issuer=_optional(members, "issuer", _issuer) or _DEFAULT.issuer,
        effect=_optional(members, "effect", _effect),
        ttl_s=_optional(members, "ttl", _ttl),
        redeem=_optional(members, "redeem", _redeem),
        audience=_optional(members, "audience", _audience),
        params=_params(members.get("params", {})),
        digest_only=digest_only,
        duplicate=_optional(members, "duplicate", _duplicate) or _DEFAULT.duplicate,
    )


def _approval(value: object) -> ApprovalSpec:
    members = _object(value, "approval", APPROVAL)
    default = ApprovalSpec()
    return ApprovalSpec(
        groups=_texts(members.get("groups", []), "approval.groups", NAME, MEDIUM, MAX_GROUPS),
        quorum=_whole(members.get("quorum", default.quorum), "approval.quorum", MAX_QUORUM),
        answer_within_s=_whole(
            members.get("answer_within", default.answer_within_s), "approval.answer_within", MAX_ANSWER_WITHIN_S
        ),
        valid_for_s=_whole(members.get("valid_for", default.valid_for_s), "approval.valid_for", MAX_VALID_FOR_S),
    )


def _meters(value: object) -> Mapping[str, int]:
    members = _object(value, "meters")
    if len(members) > MAX_METERS:
        _refuse("meters", f"must not be more than {MAX_METERS}")
    return MappingProxyType({_text(name, "meters", METER, SHORT): _micro(spent) for name, spent in members.items()})


def _micro(value: object) -> int:
    """Whole millionths. What is spent but smaller than a millionth counts as one: it is never free."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _refuse("meters", "must be finite numbers")
    if not 0 <= value <= MAX_METER:
        _refuse("meters", f"must be between 0 and {MAX_METER}")
    exact = Decimal(repr(value)) * MICRO
    whole = int(exact.to_integral_value(ROUND_HALF_UP))
    return 1 if whole == 0 and value > 0 else whole


def _params(value: object) -> Mapping[str, Json]:
    members = _object(value, "grant.params")
    if len(members) > MAX_PARAMS or any(not 1 <= len(name) <= SHORT for name in members):
        _refuse("grant.params", f"must be at most {MAX_PARAMS} members with names of 1 to {SHORT} characters")
    if members and len(canonical.dumps(members)) > MAX_PARAMS_BYTES:
        _refuse("grant.params", f"must be at most {MAX_PARAMS_BYTES} bytes")
    return MappingProxyType(members)


def _effect(value: object, place: str) -> Effect:
    found = EFFECTS.get(value) if isinstance(value, str) else None
    return found or _refuse(place, "must be read, idempotent or once")


def _redeem(value: object, place: str) -> RedeemMode:
    found = REDEEM_MODES.get(value) if isinstance(value, str) else None
    return found or _refuse(place, "must be required or optional")


def _duplicate(value: object, place: str) -> Duplicate:
    found = _DUPLICATES.get(value) if isinstance(value, str) else None
    return found or _refuse(place, "must be ask, replay or run")


def _issuer(value: object, place: str) -> str:
    return _text(value, place, NAME, MEDIUM)


def _audience(value: object, place: str) -> str:
    return _text(value, place, AUDIENCE, LONG)


def _ttl(value: object, place: str) -> int:
    return _whole(value, place, MAX_TTL_S)


def _optional(members: Mapping[str, Json], name: str, read: Callable[[object, str], T]) -> T | None:
    return read(members[name], f"grant.{name}") if name in members else None


def _whole(value: object, place: str, most: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        _refuse(place, f"must be a whole number from 1 to {most}")
    return value


def _object(value: object, place: str, known: frozenset[str] | None = None) -> dict[str, Json]:
    if not isinstance(value, dict):
        _refuse(place, "must be an object")
    if known is not None and not value.keys() <= known:
        _refuse(place, f"has a member beside {', '.join(sorted(known))}")
    return value


def _texts(value: object, place: str, pattern: re.Pattern[str], longest: int, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > most:
        _refuse(place, f"must be an array of at most {most}")
    texts = tuple(_text(one, place, pattern, longest) for one in value)
    if len(set(texts)) != len(texts):
        _refuse(place, "must not repeat itself")
    return texts


def _text(value: object, place: str, pattern: re.Pattern[str], longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest or pattern.fullmatch(value) is None:
        _refuse(place, f"must be text of at most {longest} characters like {pattern.pattern}")
    return value


def _refuse(place: str, rule: str) -> NoReturn:
    # The value itself may be an argument of the action; it stays out of errors.
    raise PolicyUnavailable(f"the policy answered outside its contract: {place} {rule}")
