"""What is soaked: for each kind its module, how much of it the design wants, and how much is one slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Kind:
    """`module` has `slice(seed, size)`. `total` is the size of a whole soak, `size` that of a slice of some minutes."""

    module: str
    total: int
    size: int
    unit: str


KINDS: Final[Mapping[str, Kind]] = {
    "matrix": Kind("faults.matrix", 1_800, 60, "placed faults"),
    "random-kills": Kind("faults.random_kills", 1_000, 50, "kills at random times"),
    "orphans": Kind("faults.orphans", 200, 20, "kills around a mint"),
    "zombies": Kind("faults.zombies", 1_000, 100, "schedules of frozen holders"),
    "duplicates": Kind("faults.duplicates", 10_000, 1_000, "duplicated requests"),
    "model": Kind("model.walking", 20_000, 500, "walks"),
    "model-postgres": Kind("model.on_postgres", 2_000, 100, "walks"),
    "tokens": Kind("security.fuzz.tokens", 1_000_000, 100_000, "tokens and proofs"),
    "policy-answers": Kind("security.fuzz.policy_answers", 500_000, 100_000, "answers"),
    "ledger-bytes": Kind("security.fuzz.ledger_bytes", 1_000_000, 100_000, "inputs"),
    "http": Kind("security.fuzz.http_walk", 100_000, 5_000, "requests"),
}
