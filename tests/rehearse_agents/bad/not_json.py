"""Returns an object that nobody can give back to it later."""

from typing import Any

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> Any:  # noqa: ANN401 - so that nobody sees it beforehand
    return {to}


with stepgrant.run("newsletter", agent="mailer"):
    send("ada")
