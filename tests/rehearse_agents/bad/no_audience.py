"""Uses its credential at a server that no policy names."""

from typing import Annotated

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str, credential: Annotated[stepgrant.Credential, stepgrant.Inject]) -> int:
    return len(credential.headers("POST", f"https://mails.example/{to}"))


with stepgrant.run("newsletter", agent="mailer"):
    send("ada")
