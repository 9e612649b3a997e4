"""Does half of its work outside of its tools."""

from pathlib import Path

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer"):
    done = send("ada")
    with Path("outbox.txt").open("a", encoding="utf-8") as outbox:
        outbox.write(done)
