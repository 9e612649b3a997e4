"""Catches everything, so that a question to a person is taken for an answer."""

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer") as run:
    try:
        run.result = send("ada")
    except Exception as error:  # noqa: BLE001 - this is the mistake
        run.result = f"never mind: {error}"
