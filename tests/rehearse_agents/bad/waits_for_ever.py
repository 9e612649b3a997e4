"""Waits for what never comes, once it was interrupted."""

import time

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer") as run:
    while run.resumed:
        time.sleep(0.1)
    send("ada")
