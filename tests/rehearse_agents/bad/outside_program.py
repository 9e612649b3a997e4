"""Starts a program beside its tools."""

import subprocess
import sys

import stepgrant


@stepgrant.tool(effect="idempotent", step_id="mail-{to}")
def send(to: str) -> str:
    return f"sent to {to}"


with stepgrant.run("newsletter", agent="mailer"):
    send("ada")
    subprocess.run([sys.executable, "-c", ""], check=True)
