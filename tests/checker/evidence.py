"""What the referee looks at: a ledger, the tables beside it, the targets' own books, and what the agents were told.

Rules:
* Nothing here knows the broker. Entries are bytes that `stepgrant.receipt` reads; tables are rows as SQL gives them.
* A witness is never believed about another one: each is compared with the others.

`books` are lines that a target, a database server or an engine wrote down itself. The first key says what a line is,
`?` marks what may be missing, and other keys may stand beside them:

    {"did": tool, "run", "step", "attempt", "epoch", "key", "jti"?, "digest"?, "act_before"?, "at"?, "login"?}
        an effect (or a read) happened: `key` is the idempotency key of its grant, `at` ms since the epoch. Without a
        `jti` (a login) the grant is found by run, step, attempt and epoch.
    {"spent": jti, "run", "step", "attempt", "epoch", "digest"?, "act_before", "at"}
        a grant was redeemed for this target, before anything was done with it.
    {"refused": code, ...}
        nothing was done.
    {"login": name, "alive": bool, "sessions": n, "at", "run"?, "step"?, "attempt"?, "epoch"?}
        what a database server says of a login at one time; give all of them, beside all runs that may have any.
    {"answered": decision_id, "effect": "allow"|"deny"|"require_approval"}
        what a policy engine says that it answered. If there is one such line, all answers of that engine are here.
    {"down": "policy"|"issuer"|"ledger", "from", "to"}
        a dependency certainly gave no answer in this time (ms); whoever made the fault says so.

`heard` is one list of lines for each process of an agent, in the order in which it was told:

    {"run": id, "epoch": n}                      the run was opened or resumed; the lines after it are about this run
    {"acts": step, "attempt", "epoch", "jti"?}   a credential came, and the tool runs with it
    {"told": step, "value": v}                   the call of this step returned this
    {"accepted": verb, "epoch": n, "asked": ms}  the broker did what a holder of this epoch asked at that time
    {"ended": true}                              the run's end was acknowledged
    {"stopped": code}, anything else             not looked at
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

Line: TypeAlias = Mapping[str, Any]
Row: TypeAlias = Mapping[str, Any]
Invariant: TypeAlias = Literal["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9"]

MEANING: Final[Mapping[Invariant, str]] = {
    "I1": "acknowledged means durable",
    "I2": "at most one live grant per run, step and attempt",
    "I3": "no credential usable without its ledger entry",
    "I4": "one chain per run, no fork, and the tables say what it says",
    "I5": "nothing to a fenced holder",
    "I6": "a failed dependency never becomes an allow",
    "I7": "a completed step never runs again",
    "I8": "a once effect happens at most once; a lost outcome is in doubt, not repeated",
    "I9": "after the end of a run nothing that it was given still works",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """An invariant that does not hold. `where` names the witness and the place: `entry 12`, `book 3`, `heard 0.4`."""

    invariant: Invariant
    run: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} ({MEANING[self.invariant]}): {self.run or 'tenant'}, {self.where}: {self.text}"


@dataclass(frozen=True, slots=True)
class Record:
    """One row of `entries`: `chain` is a run's id, or empty for the tenant's own chain."""

    tenant: str
    chain: str
    seq: int
    hash: bytes = field(repr=False)
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tables:
    """Rows beside the ledger, by column name, as SQL gives them."""

    runs: Sequence[Row] = ()
    steps: Sequence[Row] = ()
    grants: Sequence[Row] = ()
    approvals: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All witnesses of some runs.

    `read_at`: when the ledger was read, ms since the epoch. `one_clock`: every witness kept the same time, so times of
    one may be compared with those of another; false where a test bends clocks. `settled_at`: by then every dependency
    was up again and two sweeps had passed, so what was taken back before must be confirmed dead, and no login of it
    lives. Without `tables` only the entries are judged.
    """

    entries: Sequence[Record]
    tables: Tables | None = None
    books: Sequence[Line] = ()
    heard: Sequence[Sequence[Line]] = ()
    read_at: int = 0
    one_clock: bool = True
    settled_at: int | None = None

    def beside(self, *, books: Sequence[Line] = (), heard: Sequence[Sequence[Line]] = ()) -> Evidence:
        """With what targets and agents say on top."""
        return replace(self, books=[*self.books, *books], heard=[*self.heard, *heard])

    def chains(self) -> Iterator[tuple[tuple[str, str], list[Record]]]:
        """Each chain's records as they were read; (tenant, chain) first."""
        found: dict[tuple[str, str], list[Record]] = {}
        for record in self.entries:
            found.setdefault((record.tenant, record.chain), []).append(record)
        yield from found.items()
