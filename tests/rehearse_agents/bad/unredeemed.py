"""Acts without showing its credential to anybody, under a policy that says it does: so it counts as never used."""

import stepgrant


def was_it_charged(_: stepgrant.CurrentStep) -> stepgrant.Verdict:
    return stepgrant.unknown()


@stepgrant.tool(effect="once", step_id="charge-{card}", reconcile=was_it_charged)
def charge(card: str) -> str:
    return f"charged {card}"


with stepgrant.run("order-991", agent="billing"):
    charge("4711")
