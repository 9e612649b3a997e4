"""The 24 points at which the design's table wants everything broken, by our names, and the cases made of them.

A case is one run of `workman.py` with one fault at one hit of one point, on one kind of lab.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from faults.lab import ISSUERS, STORES, IssuerName, StoreName

Action = Literal["kill", "raise", "sleep", "lost"]
ACTIONS: Final[tuple[Action, ...]] = ("kill", "raise", "sleep", "lost")
"""Crash, error, delay, and a reply that is lost after its commit."""

SLEEP_MS: Final = 700
FIRST_BROKER_ENDS: Final = "usecase.after_commit@4=kill"
PILING_UP: Final = "store.before_apply=sleep:40"
"""What makes a batch of more than one: while one is written, others wait."""

TABLE: Final = {
    "after parse": "api.after_parse",
    "authn": "api.after_authn",
    "jti reserve": "store.after_proof",
    "policy": "usecase.before_policy",
    "intent commit": "usecase.before_commit",
    "before Vault call": "usecase.before_mint",
    "after Vault reply, before record": "usecase.after_mint",
    "after mint": "usecase.after_lease",
    "after step insert": "store.after_step",
    "after grant insert": "store.after_grant",
    "after ledger insert": "store.after_entries",
    "before commit": "store.before_commit",
    "after commit before reply": "store.after_commit",
    "mid-reply": "api.mid_reply",
    "batch half-acknowledged": "store.mid_batch",
    "WAL checkpoint": "store.checkpoint",
    "head publish": "ledger.head",
    "recovery": "start.recovery",
    "before send": "sdk.before_send",
    "after send": "sdk.after_send",
    "before effect": "sdk.before_effect",
    "after effect": "sdk.after_effect",
    "after completion": "sdk.after_complete",
    "on resume": "sdk.on_resume",
}
"""The words of the design's table, and our names."""

MORE: Final = (
    "api.before_reply", "usecase.after_commit", "usecase.before_intend", "usecase.after_intend", "store.before_apply",
    "store.after_row", "store.after_reply", "sdk.before_open", "sdk.after_open", "sdk.before_begin", "sdk.after_begin",
    "sdk.before_complete",
)  # fmt: skip
"""Our other points: soaked too."""

HITS: Final = {
    "api.after_parse": 12, "api.after_authn": 12, "api.before_reply": 14, "api.mid_reply": 14, "store.after_proof": 10,
    "usecase.before_policy": 6, "usecase.before_commit": 12, "usecase.after_commit": 12, "usecase.before_mint": 3,
    "usecase.after_mint": 3, "usecase.after_lease": 3, "usecase.before_intend": 3, "usecase.after_intend": 3,
    "store.after_step": 8, "store.after_grant": 6, "store.after_entries": 10, "store.after_row": 4,
    "store.before_apply": 10, "store.before_commit": 10, "store.after_commit": 10, "store.after_reply": 10,
    "store.mid_batch": 2, "store.checkpoint": 10, "sdk.before_send": 8, "sdk.after_send": 8, "sdk.before_effect": 3,
    "sdk.after_effect": 3, "sdk.after_complete": 3, "sdk.before_begin": 4, "sdk.after_begin": 4,
    "sdk.before_complete": 3,
}  # fmt: skip
"""How often a run is certain to reach a point, at least; others are reached once."""

OF_VAULT: Final = frozenset({"usecase.after_lease"})
OF_SQLITE: Final = frozenset({"store.checkpoint"})
"""PostgreSQL's checkpoints are its own; `test_postgres_faults` kills it."""


@dataclass(frozen=True)
class Case:
    """One fault. `nth`: at which hit."""

    point: str
    action: Action
    nth: int
    store: StoreName
    issuer: IssuerName

    @property
    def name(self) -> str:
        """What a test is called, and what replays it."""
        return f"{self.point}@{self.nth}={self.action}/{self.store}/{self.issuer}"

    @classmethod
    def read(cls, name: str) -> Case:
        """The case of this name. Raises `ValueError`."""
        fault, store, issuer = name.split("/")
        where, _, action = fault.partition("=")
        point, _, nth = where.partition("@")
        found = [
            cls(point, one, int(nth), at, by) for one in ACTIONS for at in STORES for by in ISSUERS
            if (one, at, by) == (action, store, issuer)
        ]  # fmt: skip
        if not found or point not in {*TABLE.values(), *MORE}:
            raise ValueError(f"{name!r} is not point@nth=action/store/issuer")
        return found[0]

    @property
    def fits(self) -> bool:
        """Whether such a lab has such a point."""
        return (self.issuer == "vault-database" or self.point not in OF_VAULT) and (
            self.store == "sqlite" or self.point not in OF_SQLITE
        )

    @property
    def agents(self) -> int:
        """How many agents work at once: half a batch needs a batch."""
        return 3 if self.point == "store.mid_batch" else 1

    @property
    def by_agent(self) -> str:
        """The SDK's failpoint, as its environment says it; nothing for a fault of the broker."""
        if not self.point.startswith("sdk."):
            return ""
        action = f"sleep:{SLEEP_MS}" if self.action == "sleep" else self.action
        return f"{self.point}:{action}:{self.nth}"

    def by_brokers(self) -> Iterator[str]:
        """The failpoints of the first broker, of the second ... and of all others none."""
        action = f"sleep:{SLEEP_MS}" if self.action == "sleep" else self.action
        rule = f"{self.point}@{self.nth}={action}"
        if self.point.startswith("sdk."):
            return
        if self.point == "start.recovery":
            yield FIRST_BROKER_ENDS
        if self.point == "store.mid_batch":
            # What was acknowledged leaves the process before it dies.
            rule = f"{PILING_UP},{self.point}@{self.nth}=sleep:50,{rule}"
        yield rule


def once_each() -> Sequence[Case]:
    """Each point of the table once; actions, stores and issuers take turns, so that every pair of them occurs."""
    cases = []
    labs = [(store, issuer) for issuer in ISSUERS for store in STORES]
    for number, point in enumerate(TABLE.values()):
        turns = [
            (ACTIONS[(number + more) % 4], *labs[(number // 4 + number + turn) % 4])
            for more in range(4)
            for turn in range(4)
        ]
        made = (Case(point, action, HITS.get(point, 1) // 2 + 1, store, issuer) for action, store, issuer in turns)
        cases.append(next(case for case in made if case.fits))
    return cases


def drawn(seed: int, size: int) -> list[Case]:
    """So many cases that follow from the seed, over all points, actions, stores and issuers."""
    draw = random.Random(seed)
    points = sorted({*TABLE.values(), *MORE})
    cases: list[Case] = []
    while len(cases) < size:
        point = draw.choice(points)
        nth = draw.randint(1, HITS.get(point, 1))
        case = Case(point, draw.choice(ACTIONS), nth, draw.choice(STORES), draw.choice(ISSUERS))
        if case.fits:
            cases.append(case)
    return cases
