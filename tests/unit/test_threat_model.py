"""Each row of THREAT_MODEL.md names a test that exists, and is marked exactly if a mutant removes its guard."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODEL = (ROOT / "THREAT_MODEL.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", MODEL)
MARKED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)` \\\* \|$", MODEL, re.MULTILINE)


def test_rows_are_found() -> None:
    rows = [line for line in MODEL.splitlines() if line.count("|") == 4]
    attacks = [row for row in rows if "::" in row]
    assert len(attacks) == len(NAMED) > 30


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_named_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_the_marked_rows_are_those_whose_test_a_mutant_names() -> None:
    patches = [path.read_text() for path in sorted((ROOT / "tests" / "mutants").glob("*.patch"))]
    mutated = {re.findall(r"^# test: (\S+?)::(\w+)", text, re.MULTILINE)[0] for text in patches}
    assert MODEL.count("\\* |\n") == len(MARKED)
    assert [row for row in NAMED if row in mutated] == MARKED
