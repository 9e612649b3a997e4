"""Names its run after the process, so that a restarted one finds nothing of what was done."""

import os

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run(f"newsletter-{os.getpid()}", agent="mailer"):
    send("ada")
