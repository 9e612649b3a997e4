"""Does something that must happen once, and cannot tell afterwards whether it did."""

import stepgrant


@stepgrant.tool(effect="once", step_id="charge-{card}")
def charge(card: str) -> str:
    return f"charged {card}"


with stepgrant.run("order-991", agent="billing"):
    charge("4711")
