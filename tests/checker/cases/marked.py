"""Cases: evidence that breaks one invariant alone, each registered with the name of that invariant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from checker.evidence import Evidence, Invariant
from checker.ledgers import Ledger

Case: TypeAlias = Callable[[], Ledger | Evidence]
CASES: Final[list[tuple[Invariant, Case]]] = []


def breaks(invariant: Invariant) -> Callable[[Case], Case]:
    """Mark a case with what it breaks."""

    def mark(case: Case) -> Case:
        CASES.append((invariant, case))
        return case

    return mark


def rows_changed(ledger: Ledger, **tables: object) -> Evidence:
    """The ledger's evidence with other rows in these tables."""
    evidence = ledger.evidence()
    if evidence.tables is None:
        raise LookupError("there are no tables to change")
    return replace(evidence, tables=replace(evidence.tables, **tables))  # type: ignore[arg-type]
