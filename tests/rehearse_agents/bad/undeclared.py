"""Says nothing of what its tool does."""

import stepgrant


@stepgrant.tool
def charge(card: str) -> str:
    return f"charged {card}"


with stepgrant.run("order-991", agent="billing"):
    charge("4711")
