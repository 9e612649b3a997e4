"""What all folders share: an entry with its place, and small changes of counted maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from stepgrant_broker.domain.entries import Entry
from stepgrant_broker.domain.state import Approval, Grant, History, Run, Step, View


class At:
    """One entry as a folder reads it."""

    __slots__ = ("body", "entry", "f", "step", "ts")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.f = entry.fields
        self.body: Mapping[str, Any] = entry.fields["body"]
        self.ts = entry.ts
        self.step: str = entry.step or ""

    def part(self, name: str) -> Mapping[str, Any]:
        """A member that this entry type always has."""
        value: Mapping[str, Any] = self.f[name]
        return value

    def prev_hash(self) -> str:
        """This entry's hash as the next entry's `prev`."""
        return self.entry.link


evolve: Final = replace
"""Each entry of each call changes several values of the state."""


def bump(counts: Mapping[str, int], name: str, by: int = 1) -> Mapping[str, int]:
    """The counts with `name` moved; what falls to nothing leaves the map."""
    value = counts.get(name, 0) + by
    after = {**counts, name: value}
    if value <= 0:
        del after[name]
    return after


def bump_all(counts: Mapping[str, int], names: Iterable[str], by: int) -> Mapping[str, int]:
    """`bump` for each name."""
    for name in names:
        counts = bump(counts, name, by)
    return counts


def add_all(counts: Mapping[str, int], amounts: Mapping[str, int], sign: int) -> Mapping[str, int]:
    """The counts with each amount added (`sign` 1) or taken back (`sign` -1)."""
    for name, amount in amounts.items():
        counts = bump(counts, name, sign * amount)
    return counts


def the_run(view: View) -> Run:
    """The run of a view that has one."""
    if view.run is None:
        raise LookupError("an entry of a run was folded into a view without one")
    return view.run


def with_run(view: View, run: Run) -> View:
    """The view with this run."""
    return evolve(view, run=run)


def with_history(view: View, history: History) -> View:
    """The view with its run's history replaced."""
    return evolve(view, run=evolve(the_run(view), history=history))


def with_step(view: View, step: Step) -> View:
    """The view with this step."""
    return evolve(view, steps={**view.steps, step.key: step})


def with_grant(view: View, grant: Grant) -> View:
    """The view with this grant."""
    return evolve(view, grants={**view.grants, grant.jti: grant})


def with_approval(view: View, approval: Approval) -> View:
    """The view with this approval."""
    return evolve(view, approvals={**view.approvals, approval.id: approval})
