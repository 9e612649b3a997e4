"""Sends mails one after the other, each asked about by itself; a look at the end fails until all are sent."""

from __future__ import annotations

import stepgrant

PEOPLE = ("ada", "edsger", "grace", "tony")
sent: list[str] = []


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


@stepgrant.tool(effect="read", step_id="look", retry_failed=True)
def look() -> int:
    if len(sent) < len(PEOPLE):
        raise LookupError("not yet")
    return len(sent)


with stepgrant.run("newsletter", agent="mailer") as run:
    try:
        for name in PEOPLE:
            sent += [send(name)]
    finally:
        run.result = look()
