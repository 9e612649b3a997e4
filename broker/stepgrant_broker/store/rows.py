"""Domain value <-> row: one place, generated from the values' fields, so that no field can be forgotten.

Rules:
* Every column of a table is a field of its value, is derived here, or is named as the store's own; every field has a
  column. Anything else stops the import (`TypeError`).
* Enums rest as their values, mappings and tuples as canonical JSON text (sorted, compact, ASCII), a `Wrapped` as its
  three members.
* A row that cannot be read back is `RowDamaged`: somebody else wrote it. It never shows what stands in it.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

import msgspec
from sqlalchemy import Table as CoreTable

from stepgrant_broker.domain.commitments import Kept
from stepgrant_broker.domain.grants import due_at, is_open, quiet_at
from stepgrant_broker.domain.keys import SigningKey
from stepgrant_broker.domain.ports import SecretRecord, Wrapped
from stepgrant_broker.domain.state import Answer, Approval, Epoch, Grant, History, Run, Step, StepState
from stepgrant_broker.domain.writes import (
    ChainKey,
    Operator,
    PolicyText,
    ProofUse,
    Quarantine,
    StoredAnswer,
    Tenant,
    Workload,
)
from stepgrant_broker.store import tables

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]
Code: TypeAlias = Callable[[Any], Any]

LEEWAY_MAX_MS: Final = 120_000
"""The largest leeway a broker may be set to. A larger one would let a live credential of an older epoch go unseen."""
FOREVER: Final = 1 << 62

_write = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict).encode
_write_plain = msgspec.json.Encoder(order="sorted", enc_hook=dict).encode
_parse = msgspec.json.Decoder().decode

_WRAPPED: Final = tuple(typing.get_type_hints(Wrapped))


class RowDamaged(Exception):
    """A row that this store did not write."""


class Codec(Generic[T]):
    """Maps one value class to one table. `derived`: columns computed from the value; `own`: columns the store fills.

    `columns` are those that a value is read from, in its fields' order; `bound` those that it is written to, in the
    table's order.
    """

    def __init__(
        self,
        row: type[tables.Table],
        value: type[T],
        *,
        derived: Mapping[str, Callable[[T], int]] | None = None,
        own: Sequence[str] = (),
    ) -> None:
        self.table = cast("CoreTable", vars(row)["__table__"])
        self.value = value
        self._decoders: list[tuple[int, Code]] = []
        self._wrapped: int | None = None
        paths, encoders = self._read_fields()
        self.columns = tuple(paths)
        derive = derived or {}
        written = {*self.columns, *derive}
        there = {column.name for column in self.table.columns}
        if there != {*written, *own}:
            raise TypeError(f"{self.table.name} does not fit {value.__name__}: {sorted(there ^ {*written, *own})}")
        self.bound = tuple(column.name for column in self.table.columns if column.name not in own)
        # All is read at once, in the table's order; where a derived column goes, any value stands until it is known.
        self._get = attrgetter(*(paths.get(name, paths[self.columns[0]]) for name in self.bound))
        self._encoders = [(at, encoders[name]) for at, name in enumerate(self.bound) if name in encoders]
        self._derive = [(at, derive[name]) for at, name in enumerate(self.bound) if name in derive]
        self._nullable = [at for at, name in enumerate(self.bound) if self.table.c[name].nullable]

    def _read_fields(self) -> tuple[dict[str, str], dict[str, Code]]:
        """Each column with the path to what stands in it, and those that do not rest as they are with their code."""
        paths: dict[str, str] = {}
        encoders: dict[str, Code] = {}
        for name, hint in typing.get_type_hints(self.value).items():
            at = len(paths)
            if hint is Wrapped:
                self._wrapped = at
                paths.update((member, f"{name}.{member}") for member in _WRAPPED)
                continue
            encode, decode = _codes(hint)
            inner = _inner(hint)
            paths[name] = name if inner is None else f"{name}.{inner}"
            if encode is not None and inner is None:
                encoders[name] = encode
            if decode is not None:
                self._decoders.append((at, decode))
        return paths, encoders

    def places(self, value: T, null: object = None) -> tuple[Any, ...]:
        """The row of a value in the order of `bound`, derived columns included, the store's own columns not.

        `null`: what the driver is given for `None`.
        """
        row = list(self._get(value))
        for at, code in self._encoders:
            if row[at] is not None:
                row[at] = code(row[at])
        for at, code in self._derive:
            row[at] = code(value)
        if null is not None:
            for at in self._nullable:
                if row[at] is None:
                    row[at] = null
        return tuple(row)

    def encode(self, value: T) -> Row:
        """The same by name."""
        return dict(zip(self.bound, self.places(value), strict=True))

    def decode(self, row: Sequence[Any]) -> T:
        """The value of a row that begins with `columns`. Raises `RowDamaged`."""
        values = list(row[: len(self.columns)])
        try:
            for at, code in self._decoders:
                if values[at] is not None:
                    values[at] = code(values[at])
            if self._wrapped is not None:
                end = self._wrapped + len(_WRAPPED)
                values[self._wrapped : end] = [Wrapped(*values[self._wrapped : end])]
            return self.value(*values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RowDamaged(f"a row of {self.table.name} is damaged ({type(error).__name__})") from None


def _inner(hint: Any) -> str | None:  # noqa: ANN401 - any type hint
    """The attribute of such a value that is what rests of it, if it has one: nothing has to be called for it."""
    if hint is bool:
        return "real"
    # An enum's own `value` is a property written in Python; every grant has six of them.
    return "_value_" if isinstance(hint, type) and issubclass(hint, StrEnum) else None


def _codes(hint: Any) -> tuple[Code | None, Code | None]:  # noqa: ANN401 - any type hint
    """How values of this type rest and come back; `None`: as they are."""
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in hint.__args__ if part is not types.NoneType)
    if hint in {str, int, bytes}:
        return None, None
    if hint is bool:
        # As a number: SQLite's driver looks for adapters of everything that is not exactly a type of its own.
        return int, _READ_BOOL.__getitem__
    if hint is History:
        return _write_history, _read_history
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return None, {word: word for word in hint.__args__}.__getitem__
    if origin is tuple:
        return (_write_answers, _read_answers) if hint.__args__[0] is Answer else (_write_list, _read_tuple)
    if origin is Mapping:
        return _write_map, _read_map
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return attrgetter("_value_"), {member.value: member for member in hint}.__getitem__
    raise TypeError(f"no column for {hint}")


_READ_BOOL: Final = {0: False, 1: True}


def _read(text: str, kind: type[T]) -> T:
    value = json.loads(text) if "\\u" in text else _parse(text)
    if not isinstance(value, kind):
        raise TypeError(kind.__name__)
    return value


def _write_map(value: Mapping[str, Any]) -> str:
    return _write(dict(value)) if value else "{}"


def _read_map(text: str) -> dict[str, Any]:
    return {} if text == "{}" else _read(text, dict)


def _write_list(value: tuple[str, ...]) -> str:
    return _write(list(value)) if value else "[]"


def _read_tuple(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(_read(text, list))


def _write_history(value: History) -> str:
    text = _write_plain(value).decode()
    # It only counts under names, so that these are all that the two encoders write differently.
    return text if text.isascii() and "\x7f" not in text else _write(msgspec.to_builtins(value, enc_hook=dict))


def _read_history(text: str) -> History:
    return History(**_read(text, dict))


def _write_answers(value: tuple[Answer, ...]) -> str:
    return _write(msgspec.to_builtins(value)) if value else "[]"


def _read_answers(text: str) -> tuple[Answer, ...]:
    return () if text == "[]" else tuple(Answer(**answer) for answer in _read(text, list))


def _live_until(grant: Grant) -> int:
    """Until when `domain.grants.live_effectful` may still name this grant, whatever leeway the broker has."""
    if not grant.effect.effectful:
        return 0
    quiet = quiet_at(grant, LEEWAY_MAX_MS)
    return FOREVER if quiet is None else min(quiet, FOREVER)


def _due_at(grant: Grant) -> int:
    return min(due_at(grant) or 0, FOREVER)


_DONE: Final = tuple(state for state in StepState if state.done)

RUN: Final = Codec(tables.RunRow, Run, own=("lease_until", "rests_seq", "rests_until"))
EPOCH: Final = Codec(tables.EpochRow, Epoch, own=("over",))
STEP: Final = Codec(
    tables.StepRow, Step, derived={"done": lambda step: int(step.state in _DONE or step.same_as is not None)}
)
GRANT: Final = Codec(
    tables.GrantRow,
    Grant,
    derived={"is_open": lambda grant: int(is_open(grant)), "live_until": _live_until, "due_at": _due_at},
)
APPROVAL: Final = Codec(tables.ApprovalRow, Approval)
TENANT: Final = Codec(tables.TenantRow, Tenant)
WORKLOAD: Final = Codec(tables.WorkloadRow, Workload)
OPERATOR: Final = Codec(tables.OperatorRow, Operator)
QUARANTINE: Final = Codec(tables.QuarantineRow, Quarantine)
POLICY: Final = Codec(tables.PolicyRow, PolicyText)
CHAIN_KEY: Final = Codec(tables.ChainKeyRow, ChainKey)
SECRET: Final = Codec(tables.SecretRow, SecretRecord)
SIGNING_KEY: Final = Codec(tables.SigningKeyRow, SigningKey)
ANSWER: Final = Codec(tables.AnswerRow, StoredAnswer)
PROOF: Final = Codec(tables.ProofRow, ProofUse)
PAYLOAD: Final = Codec(tables.PayloadRow, Kept, own=("tenant", "chain", "expires_at"))
"""Entries have no codec: their table holds the sealed bytes, not their fields (`statements.py`)."""

WHOLE: Final[Mapping[type, Codec[Any]]] = {
    codec.value: codec
    for codec in (EPOCH, STEP, GRANT, APPROVAL, WORKLOAD, OPERATOR, QUARANTINE, POLICY, CHAIN_KEY, SECRET)
}
"""The rows that are written whole, by their key. `Run` and `Tenant` are not: they carry the versions."""
