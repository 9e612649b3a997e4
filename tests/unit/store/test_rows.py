"""Rows: nothing can be forgotten between a value and its table, and a damaged row is refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from conformance.store.making import a_grant, a_run, a_step
from stepgrant_broker.domain import writes
from stepgrant_broker.domain.state import Run, StepState
from stepgrant_broker.domain.writes import Quarantine
from stepgrant_broker.store import rows, tables

CODECS = [codec for codec in vars(rows).values() if isinstance(codec, rows.Codec)]


def test_every_row_type_has_a_codec() -> None:
    missing = {kind for kind in writes.Row.__args__ if kind not in {codec.value for codec in CODECS}}
    assert missing == set()
    assert {kind for kind in writes.Row.__args__ if kind not in rows.WHOLE} == {Run, writes.Tenant}


def test_every_table_but_those_of_the_ledger_has_one_codec() -> None:
    kept_as_bytes = {"entries", "log", "log_tiles", "log_heads"}
    assert sorted(codec.table.name for codec in CODECS) == sorted(set(tables.METADATA.tables) - kept_as_bytes)


def test_a_field_without_a_column_stops_the_import() -> None:
    @dataclasses.dataclass(frozen=True)
    class Longer(Quarantine):
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
