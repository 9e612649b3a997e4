"""Gives each call a good id, but draws its arguments anew in each process."""

import uuid

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str, subject: str) -> str:
    return f"sent {subject} to {to}"


with stepgrant.run("newsletter", agent="mailer"):
    for person in ("ada", "grace"):
        send(person, f"offer {uuid.uuid4()}")
