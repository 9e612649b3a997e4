"""Rows: nothing can be forgotten between a value and its table, and a damaged row is refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.store.making import a_grant, a_run, a_step
from stepgrant_broker.domain import writes
from stepgrant_broker.domain.state import History, Run, StepState
from stepgrant_broker.domain.writes import Quarantine
from stepgrant_broker.store import rows, tables
from stepgrant_broker.store.applying import NULL

CODECS = [codec for codec in vars(rows).values() if isinstance(codec, rows.Codec)]


def test_every_row_type_has_a_codec() -> None:
    missing = {kind for kind in writes.Row.__args__ if kind not in {codec.value for codec in CODECS}}
    assert missing == set()
    assert {kind for kind in writes.Row.__args__ if kind not in rows.WHOLE} == {Run, writes.Tenant}


def test_every_table_but_those_of_the_ledger_has_one_codec() -> None:
    kept_as_bytes = {"entries", "log", "log_tiles", "log_heads"}
    assert sorted(codec.table.name for codec in CODECS) == sorted(set(tables.METADATA.tables) - kept_as_bytes)


def test_a_field_without_a_column_stops_the_import() -> None:
    class Longer(Quarantine, frozen=True):
        reason: str = ""

    with pytest.raises(TypeError, match=r"quarantines does not fit Longer: \['reason'\]"):
        rows.Codec(tables.QuarantineRow, Longer)


def test_a_column_without_a_field_stops_the_import() -> None:
    with pytest.raises(TypeError, match="lease_until"):
        rows.Codec(tables.RunRow, Run)


def test_a_type_without_a_form_stops_the_import() -> None:
    @dataclasses.dataclass
    class Odd:
        at: float

    with pytest.raises(TypeError, match="no column"):
        rows.Codec(tables.QuarantineRow, Odd)


def test_json_text_is_canonical() -> None:
    row = rows.RUN.encode(a_run(labels={"b": "ü", "a": "x"}))
    assert row["labels"] == '{"a":"x","b":"\\u00fc"}'
    assert row["history"].startswith('{"denials":0,"effects":{},"in_flight":0,')


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        rows.GRANT.encode(a_grant(a_run(), "s", params={"n": number}))


@pytest.mark.parametrize("name", ["state", "effect", "recorded", "id_source"])
def test_a_damaged_word_is_refused(name: str) -> None:
    row = {**rows.STEP.encode(a_step(a_run())), name: "secret-looking"}
    with pytest.raises(rows.RowDamaged, match=r"^a row of steps is damaged \(KeyError\)$"):
        rows.STEP.decode([row[column] for column in rows.STEP.columns])


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"unknown":1}', b"\xff", '"text"'])
def test_damaged_json_is_refused(text: object) -> None:
    row = {**rows.RUN.encode(a_run()), "history": text}
    with pytest.raises(rows.RowDamaged, match="runs"):
        rows.RUN.decode([row[column] for column in rows.RUN.columns])


@pytest.mark.parametrize("state", StepState)
def test_done_is_what_the_domain_says(state: StepState) -> None:
    assert rows.STEP.encode(a_step(a_run(), state=state))["done"] == int(state.done)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["\x7f", "\x00\x1f", '"\\/', "ü"]
)
COUNTS = st.dictionaries(NAMES, st.integers(-(2**53), 2**53), max_size=4)


@given(st.builds(History, tools=COUNTS, labels=COUNTS, meters=COUNTS, denials=st.integers(0, 2**53)))
def test_a_history_rests_as_the_slower_encoder_writes_it_and_comes_back(history: History) -> None:
    row = rows.RUN.encode(a_run(history=history))
    parts = {name: getattr(history, name) for name in typing.get_type_hints(History)}
    assert row["history"] == json.dumps(parts, sort_keys=True, separators=(",", ":"))
    assert rows.RUN.decode([row[name] for name in rows.RUN.columns]).history == history


def test_what_stands_for_none_rests_as_null() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        step = a_step(a_run())
        row = rows.STEP.places(step, NULL)
        found = db.execute(f"SELECT {', '.join('?' * len(row))}", row).fetchone()
    assert found == rows.STEP.places(step)
    assert None in found
