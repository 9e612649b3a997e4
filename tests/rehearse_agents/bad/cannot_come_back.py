"""Has no idea what to do in a run that is not new."""

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer") as run:
    if run.resumed:
        raise RuntimeError("I was not here before")
    send("ada")
