"""Every manipulation of a stolen database and its files is found, and named by its place; and nothing else is."""

from __future__ import annotations

import pytest

from security.tamper import of_entries, of_keys, of_tables, of_tree
from security.tamper.stolen import Stolen
from security.tamper.table import TABLE, Manipulation

MODULES = (of_entries, of_tree, of_tables, of_keys)


def test_there_are_more_of_them_than_were_asked_for() -> None:
    assert len(TABLE) >= 24
    assert len({one.name for one in TABLE}) == len(TABLE)


async def test_what_nobody_touched_holds(stolen: Stolen) -> None:
    async with stolen.checking() as check:
        assert [finding async for finding in check.findings()] == []
        progress = check.progress
    assert (progress.leaves, progress.counted, progress.unsigned, progress.waiting) == (stolen.victim.size,) * 2 + (
        0,
        0,
    )
    assert (progress.heads, progress.cosignatures) == (len(stolen.victim.heads),) * 2
    assert progress.tiles == 3


@pytest.mark.parametrize("manipulation", TABLE, ids=lambda one: one.name.replace(" ", "-"))
async def test_a_manipulation_is_found_where_it_is(stolen: Stolen, manipulation: Manipulation) -> None:
    expected = set(manipulation.act(stolen))
    found = await stolen.findings()
    assert {(finding.code, finding.at) for finding in found} == expected, "\n".join(map(str, found))
    assert len(found) == len(expected), "one change is one finding"
