"""Numbers that engines would read differently are findings, with the one way to write them."""

import pytest

from policies import ALLOW, one
from stepgrant_broker.policy.bundle import Bundle, from_files
from stepgrant_broker.policy.check import check


def found(bundle: Bundle) -> list[tuple[str, int, str, str]]:
    return [(one.file, one.line, one.code, one.fix) for one in check(bundle)]


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        ("1.0", "write 1"),
        ("2e3", "write 2000"),
        ("0.30000000000000001", "write 0.3"),
        ("0.10", "write 0.1"),
        ("0.0000001", "write 1e-7"),
    ],
)
def test_in_rules_and_in_data(number: str, fix: str) -> None:
    rule = one(ALLOW + f"\nlimit := {number}\n\ndecision := {{}} if limit == 7\n")
    assert ("stepgrant/main.rego", 7, "number_form", fix) in found(rule)
    settings = '{\n"a1e3": "2e3",\n"limit": [-NUMBER]}'.replace("NUMBER", number)
    data = from_files({**one(ALLOW).files, "settings/data.json": settings})
    assert found(data) == [("settings/data.json", 3, "number_form", fix)]


@pytest.mark.parametrize("text", ["0", "7", "0.3", "1e-7", "9007199254740991", '"2e3"', "`1.0`", "x1e3 # 1.0"])
def test_what_is_canonical_or_no_number_is_none(text: str) -> None:
    rule = one(ALLOW + f"\nlimit := {text}\n\nx1e3 := 1\n\ndecision := {{}} if limit == 7\n")
    assert "number_form" not in {code for _, _, code, _ in found(rule)}


def test_beyond_what_is_exact() -> None:
    rule = one(ALLOW + "\nlimit := 9007199254740993\n\ndecision := {} if limit == 7\n")
    assert ("stepgrant/main.rego", 7, "number_form", "stay within 2^53-1") in found(rule)
