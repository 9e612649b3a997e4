"""Has a reconcile hook that fails just when it is needed."""

from pathlib import Path

import stepgrant


def was_it_charged(_: stepgrant.CurrentStep) -> stepgrant.Verdict:
    return stepgrant.done(Path("no/such/book").read_text(encoding="utf-8"))


@stepgrant.tool(effect="once", step_id="charge-{card}", reconcile=was_it_charged)
def charge(card: str) -> str:
    return f"charged {card}"


with stepgrant.run("order-991", agent="billing"):
    charge("4711")
