"""Tells somebody on the network, and no tool is around it."""

import socket

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer"):
    send("ada")
    with socket.socket() as news:
        news.connect_ex(("127.0.0.1", 9))
