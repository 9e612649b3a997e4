"""Each row of THREAT_MODEL.md names a test that exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "THREAT_MODEL.md").read_text())


def test_rows_are_found() -> None:
    rows = [line for line in (ROOT / "THREAT_MODEL.md").read_text().splitlines() if line.count("|") == 4]
    attacks = [row for row in rows if "::" in row]
    assert len(attacks) == len(NAMED) > 30


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_named_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
