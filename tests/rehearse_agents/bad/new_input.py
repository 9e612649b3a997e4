"""Gives its run the time as input: the second start is refused, for the run has another one."""

import time

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer", input={"at": time.time()}):
    send("ada")
