"""Takes its work out of a set, so each process has another order, and calls are known by their place in it."""

import stepgrant

PEOPLE = {"ada", "barbara", "edsger", "grace", "leslie", "tony"}


@stepgrant.tool(effect="idempotent")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer"):
    for person in PEOPLE:
        send(person)
