"""Asks a person about one thing, comes back, and wants another."""

import time

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="charge-{card}")
def charge(card: str, note: str) -> str:
    return f"charged {card}: {note}"


with stepgrant.run("order-991", agent="billing"):
    charge("4711", f"at {time.time()}")
