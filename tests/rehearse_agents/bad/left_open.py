"""Leaves its run by the back door, and says that all is well."""

import os

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer"):
    send("ada")
    os._exit(0)
