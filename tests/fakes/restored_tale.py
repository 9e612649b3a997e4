"""A run over which the database was put back to an earlier state: every entry that comes of a restore occurs in it."""

from __future__ import annotations

from fakes.hand import Hand, ask
from fakes.tale import answer_approval
from stepgrant_broker.domain.restoring import name_after
from stepgrant_broker.usecases.quarantine import release
from stepgrant_broker.usecases.restored import Restore, restore

RESTORED_TYPES = frozenset(
    {
        "run_opened", "step_prepared", "decision", "approval_requested", "approval_decided", "grant_issued",
        "grant_revoked", "step_in_doubt", "run_restored", "run_quarantined", "run_released",
    }
)  # fmt: skip
NAME = "broker.example/log"


async def restored_life(hand: Hand) -> str:
    """Live it; the run's id. The log has its own name again afterwards: only the entries are told here."""
    run = str((await hand.open("payroll"))["run"])
    await hand.begin(run, "s1")
    asked = await hand.begin(run, "s2", ask(groups=["finance"]))
    await answer_approval(hand, run, str(asked["approval_id"]))
    hand.clock.tick(60_000)
    named = await hand.store.log_origin(NAME)
    what = Restore(40, 52, named, name_after(named), "the disk failed; backup of midnight")
    await restore(hand.ports, hand.store, what, ["acme"], lambda _: None)
    await hand.store.log_rename(what.origin, named)
    await release(hand.ports, hand.operator, "run", run)
    return run
