"""Manipulations of the registry of signing keys: each of its columns, rows planted and rows deleted.

The registry says which keys ever signed, and which of them were revoked: who could write into it unseen could vouch for
a key of his own, or bring a revoked one back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from security.tamper.stolen import Stolen
from security.tamper.table import Expected, manipulation
from stepgrant._keys import SecretKey
from stepgrant_broker.ledger.findings import Code, Place, row
from stepgrant_broker.signing.publishing import published

HEADS: Final = ("heads", 1)
FIRST: Final = ("access", 1)
REVOKED: Final = ("access", 2)
LAST: Final = ("access", 3)
INSERT: Final = (
    "INSERT INTO signing_keys (purpose, kid, number, jwk, since, signs_from, until, revoked_at, revoked_size)"
    " VALUES (:purpose, :kid, :number, :jwk, :since, :signs_from, NULL, :revoked_at, :revoked_size)"
)


def _kid(stolen: Stolen, of: tuple[str, int]) -> str:
    sql = "SELECT kid FROM signing_keys WHERE purpose = :purpose AND number = :number"
    return str(stolen.one(sql, purpose=of[0], number=of[1]))


def _at(purpose: str, kid: str) -> Place:
    return row("signing_keys", purpose=purpose, kid=kid)


def _column(name: str, of: tuple[str, int], code: Code, **change: object) -> None:
    """One column of a row has another value."""

    def act(stolen: Stolen) -> Expected:
        ((column, value),) = change.items()
        kid = _kid(stolen, of)
        sql = f"UPDATE signing_keys SET {column} = :value WHERE purpose = :purpose AND kid = :kid"  # noqa: S608 - ours
        assert stolen.do(sql, value=value, purpose=of[0], kid=kid) == 1
        return [(code, _at(of[0], kid))]

    act.__name__ = name
    manipulation(act)


_column("a_first_key_has_another_number", HEADS, Code.ROW_DIFFERS, number=7)
_column("the_first_of_several_keys_has_another_number", FIRST, Code.ROW_DIFFERS, number=0)
_column("a_later_key_has_another_number", LAST, Code.ROW_DIFFERS, number=9)
_column("a_first_key_has_another_public_key", HEADS, Code.ROW_DIFFERS,
        jwk=json.dumps(dict(published(SecretKey.generate("EdDSA").public).jwk)))  # fmt: skip
_column("a_later_key_has_another_public_key", LAST, Code.ROW_DIFFERS,
        jwk=json.dumps(dict(published(SecretKey.generate().public).jwk)))  # fmt: skip
_column("a_key_came_at_another_time", LAST, Code.ROW_DIFFERS, since=5)
_column("a_first_key_signs_from_a_time_on", HEADS, Code.ROW_ORPHAN, signs_from=5)
_column("a_key_signs_from_another_time_on", LAST, Code.ROW_DIFFERS, signs_from=5)
_column("a_later_key_claims_to_be_the_first_one", REVOKED, Code.ROW_DIFFERS, signs_from=0)
_column("a_key_that_signs_has_ended", LAST, Code.ROW_DIFFERS, until=5)
_column("a_key_that_ended_goes_on", FIRST, Code.ROW_DIFFERS, until=None)
_column("a_revoked_key_is_not_revoked_any_more", REVOKED, Code.ROW_DIFFERS, revoked_at=None)
_column("a_key_was_revoked_at_another_time", REVOKED, Code.ROW_DIFFERS, revoked_at=5)
_column("a_good_key_is_revoked", HEADS, Code.ROW_DIFFERS, revoked_at=5)
_column("heads_by_a_revoked_key_count_for_longer", REVOKED, Code.ROW_DIFFERS, revoked_size=10**9)


@manipulation
def a_first_keys_row_has_a_member_that_no_key_has(stolen: Stolen) -> Expected:
    kid = _kid(stolen, HEADS)
    jwk = json.loads(stolen.one("SELECT jwk FROM signing_keys WHERE kid = :kid", kid=kid))
    stolen.do(
        "UPDATE signing_keys SET jwk = :jwk WHERE kid = :kid",
        jwk=json.dumps({**jwk, "x5u": "https://evil.example"}),
        kid=kid,
    )
    return [(Code.ROW_DIFFERS, _at("heads", kid))]


@manipulation
def a_key_stands_under_another_id(stolen: Stolen) -> Expected:
    kid = _kid(stolen, HEADS)
    stolen.do("UPDATE signing_keys SET kid = 'another' WHERE kid = :kid", kid=kid)
    return [(Code.ROW_ORPHAN, _at("heads", "another"))]


@manipulation
def a_later_key_stands_under_another_id(stolen: Stolen) -> Expected:
    kid = _kid(stolen, LAST)
    stolen.do("UPDATE signing_keys SET kid = 'another' WHERE kid = :kid", kid=kid)
    return [(Code.ROW_MISSING, _at("access", kid)), (Code.ROW_ORPHAN, _at("access", "another"))]


@manipulation
def a_key_is_of_another_purpose(stolen: Stolen) -> Expected:
    """A key of heads would sign grants."""
    kid = _kid(stolen, HEADS)
    stolen.do("UPDATE signing_keys SET purpose = 'grants' WHERE kid = :kid", kid=kid)
    return [(Code.ROW_MISSING, _at("heads", kid)), (Code.ROW_ORPHAN, _at("grants", kid))]


@manipulation
def a_key_is_of_a_purpose_that_there_is_not(stolen: Stolen) -> Expected:
    kid = _kid(stolen, HEADS)
    stolen.do("UPDATE signing_keys SET purpose = 'wishes' WHERE kid = :kid", kid=kid)
    return [(Code.ROW_MISSING, _at("heads", kid)), (Code.ROW_ORPHAN, _at("wishes", kid))]


def _planted(stolen: Stolen, purpose: str, alg: str, **more: int | None) -> tuple[Code, Place]:
    """A row for a key of the thief's own, which is a right one but for nobody knowing it."""
    key = published(SecretKey.generate(alg).public)
    values: Mapping[str, object] = {
        "number": 0, "since": 1, "signs_from": 0, "revoked_at": None, "revoked_size": None, **more,
    }  # fmt: skip
    assert stolen.do(INSERT, purpose=purpose, kid=key.kid, jwk=json.dumps(dict(key.jwk)), **values) == 1
    return Code.ROW_ORPHAN, _at(purpose, key.kid)


@manipulation
def a_first_key_is_planted_before_the_only_one(stolen: Stolen) -> Expected:
    """No entry tells of first keys, so it could be given to auditors."""
    return [_planted(stolen, "heads", "EdDSA")]


@manipulation
def a_first_key_is_planted_behind_the_only_one(stolen: Stolen) -> Expected:
    return [_planted(stolen, "grants", "ES256", number=2)]


@manipulation
def a_first_key_is_planted_before_several(stolen: Stolen) -> Expected:
    return [_planted(stolen, "access", "ES256")]


@manipulation
def a_later_key_is_planted(stolen: Stolen) -> Expected:
    return [_planted(stolen, "heads", "EdDSA", number=2, signs_from=5)]


@manipulation
def a_key_is_planted_as_if_it_had_been_revoked_late(stolen: Stolen) -> Expected:
    """Heads by a revoked key count up to its size: a thief's own ones would."""
    return [_planted(stolen, "heads", "EdDSA", revoked_at=10, revoked_size=10**9)]


@manipulation
def a_key_is_planted_for_a_purpose_that_there_is_not(stolen: Stolen) -> Expected:
    return [_planted(stolen, "wishes", "ES256")]


@manipulation
def the_first_of_several_keys_is_replaced(stolen: Stolen) -> Expected:
    kid = _kid(stolen, FIRST)
    stolen.do("DELETE FROM signing_keys WHERE kid = :kid", kid=kid)
    return [(Code.ROW_MISSING, _at("access", kid)), _planted(stolen, "access", "ES256", number=1)]


@manipulation
def the_only_key_is_replaced(stolen: Stolen) -> Expected:
    kid = _kid(stolen, HEADS)
    stolen.do("DELETE FROM signing_keys WHERE kid = :kid", kid=kid)
    return [_planted(stolen, "heads", "EdDSA", number=1)]


def _deleted(name: str, of: tuple[str, int]) -> None:
    def act(stolen: Stolen) -> Expected:
        kid = _kid(stolen, of)
        stolen.do("DELETE FROM signing_keys WHERE kid = :kid", kid=kid)
        return [(Code.ROW_MISSING, _at(of[0], kid))]

    act.__name__ = name
    manipulation(act)


_deleted("the_only_key_of_a_purpose_is_deleted", HEADS)
_deleted("the_first_of_several_keys_is_deleted", FIRST)
_deleted("a_revoked_key_is_deleted", REVOKED)
_deleted("the_newest_key_is_deleted", LAST)


@manipulation
def the_whole_registry_is_deleted(stolen: Stolen) -> Expected:
    """What entries tell of is missed; where they tell of none, the next start registers the signer's keys again."""
    kids = [_kid(stolen, of) for of in (FIRST, REVOKED, LAST)]
    stolen.do("DELETE FROM signing_keys")
    return [(Code.ROW_MISSING, _at("access", kid)) for kid in kids]
