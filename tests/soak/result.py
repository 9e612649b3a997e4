"""The large sizes of what `make test` runs small: in slices that can be interrupted, each from its seed.

What a module offers to be soaked is one function at its top level:

    def slice(seed: int, size: int) -> Result: ...   # noqa: A001 - the one name that soak looks for

It starts what it needs and ends it, does `size` things that follow from `seed`, and says what it did and what broke. It
stands in `soak/kinds.py`. The same seed and size do the same again; `python -m soak replay KIND SEED` is that. A module
whose violations begin with a name that says all (a case of the kill matrix) also has `replay(name) -> Result`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """What one slice did.

    counts: how often what was done (`{"kills": 24, "runs": 24}`); slices are added up.
    violations: one text for each promise that did not hold, with what it takes to understand it; empty when all held.
    figures: measured numbers (`{"resume_ms_worst": 412.0}`); of slices the largest is kept.
    """

    counts: Mapping[str, int]
    violations: Sequence[str] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


def progress(done: int) -> None:
    """Tell whoever watches this slice how much of it is done; elsewhere it does nothing."""
    watcher = os.environ.get("SOAK_WATCHER")
    if watcher:
        os.write(int(watcher), f"{done}\n".encode())
