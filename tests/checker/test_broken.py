"""For each invariant: evidence that breaks it alone, and the referee names it, and nothing else.

Each case is a rule of the referee: without it nobody would notice.
"""

from __future__ import annotations

import pytest

from checker.cases import acknowledged, allowed, chains, ends, finished, grants, holders, outcomes, restored, subtle
from checker.cases.marked import CASES, Case
from checker.check import check
from checker.evidence import MEANING, Evidence, Invariant

MODULES = (acknowledged, allowed, chains, ends, finished, grants, holders, outcomes, restored, subtle)


@pytest.mark.parametrize(("invariant", "case"), CASES, ids=[case.__name__ for _, case in CASES])
def test_it_is_named_alone(invariant: Invariant, case: Case) -> None:
    given = case()
    found = check(given if isinstance(given, Evidence) else given.evidence())
    assert {one.invariant for one in found} == {invariant}, "\n".join(map(str, found))
    assert all(one.where and one.text and one.invariant in str(one) for one in found)


def test_every_invariant_has_its_cases() -> None:
    assert {invariant for invariant, _ in CASES} == set(MEANING)
    assert {case.__module__ for _, case in CASES} == {module.__name__ for module in MODULES}
