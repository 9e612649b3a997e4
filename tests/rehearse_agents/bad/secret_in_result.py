"""Returns the request that it made, with the credential in it."""

from typing import Annotated

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str, credential: Annotated[stepgrant.Credential, stepgrant.Inject]) -> dict[str, str]:
    request = credential.headers("POST", "https://mails.example/mails")
    return {"to": to, **request}


with stepgrant.run("newsletter", agent="mailer"):
    send("ada")
