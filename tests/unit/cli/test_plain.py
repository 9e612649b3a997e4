"""Text for people: spans, clocks, and what no terminal may act on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrant.cli import plain


@given(st.text())
def test_whatever_was_written_is_shown_and_never_acted_on(text: str) -> None:
    shown = plain.visible(text)
    assert shown.isprintable()
    assert all(character in shown for character in text if character.isprintable())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("pay\u202e001", "pay\\u202e001"),
        ("a\u200bb", "a\\u200bb"),
        ("a\u00a0b", "a\\xa0b"),
        ("line\nfeed", "line\\nfeed"),
        ("\U000e0041", "\\U000e0041"),
        ("Füße ✓", "Füße ✓"),
        (7, "7"),
    ],
)
def test_visible(text: object, shown: str) -> None:
    assert plain.visible(text) == shown


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (999, "999 ms"), (1000, "1 s"), (1250, "1.25 s"), (9999, "9.99 s"), (41_250, "41.2 s"),
     (59_970, "59.9 s"), (60_000, "1 min"), (185_000, "3 min 05 s"), (7_620_000, "2 h 07 min"), (3_600_000, "1 h"),
     (86_400_000, "1 d"), (273_600_000, "3 d 04 h"), (-5000, "5 s")],
)  # fmt: skip
def test_span(ms: int, text: str) -> None:
    assert plain.span(ms) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0:00.000"),
        (130, "0:00.130"),
        (70_040, "1:10.040"),
        (7_390_500, "2:03:10.500"),
        (266_590_000, "3 d 02:03:10"),
    ],
)
def test_clock(ms: int, text: str) -> None:
    assert plain.clock(ms) == text


def test_ago_and_in() -> None:
    assert plain.ago(1000, 3500) == "2.5 s ago"
    assert plain.ago(63_500, 3500) == "in 1 min"
    assert plain.utc(1_800_000_000_000) == "2027-01-15T08:00:00Z"


def test_json_is_visible_and_cut_only_where_asked() -> None:
    assert plain.json_lines({"a": "x\u2028y\x85z"}) == ["{", '  "a": "x\\u2028y\\x85z"', "}"]
    assert plain.json_lines({"a": "\x1b\u202e"}) == ["{", '  "a": "\\u001b\\u202e"', "}"]
    assert plain.json_line({"a": [1, "x"]}) == '{"a": [1, "x"]}'
    assert plain.json_line("x" * 20, 10) == "x" * 9 + "…"
    assert plain.json_line("text") == "text"


def test_counting_and_joining() -> None:
    assert [plain.count(n, "entry", "entries") for n in (0, 1, 2)] == ["0 entries", "1 entry", "2 entries"]
    assert plain.joined(["a", "b\x1b"]) == "a, b\\x1b"
    assert plain.joined([], "nobody") == "nobody"
