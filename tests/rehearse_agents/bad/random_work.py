"""Draws what it works on anew in each process, ids and all: to everybody it looks like more work."""

import uuid

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}-{reference}")
def send(to: str, reference: str) -> str:
    return f"sent {reference} to {to}"


with stepgrant.run("newsletter", agent="mailer"):
    for person in ("ada", "grace"):
        send(person, uuid.uuid4().hex)
