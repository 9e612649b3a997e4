"""Gives each call an id, but another one in each process."""

import uuid

import stepgrant


@stepgrant.tool(effect="idempotent")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer"):
    for person in ("ada", "grace"):
        send.with_id(f"mail-{uuid.uuid4()}")(person)
