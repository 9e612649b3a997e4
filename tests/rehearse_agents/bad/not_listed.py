"""Wants what its policy does not list."""

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def mail(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("order-991", agent="billing"):
    mail("ada")
