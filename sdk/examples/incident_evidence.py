# ruff: noqa: ARG001, INP001, T201 - a program, run as a file; its tools send the arguments that they are called with
"""Gathering evidence after an incident: much reading, a sealed copy of each thing, and a line that must not be crossed.

The status page may be written while nothing personal was read. Searching the logs puts the label `pii:customer` on the
run, and from then on policy refuses the status page, whatever the model would like to tell the world: the second post
is denied, in this life of the agent and in every later one.

    stepgrant dev -- python _target.py python incident_evidence.py INC-31
    stepgrant receipt get INC-31 --out evidence.json              what was looked at, for people who were not there
"""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx

import stepgrant

SERVICES = httpx.Client(
    base_url=os.environ.get("EXAMPLES_TARGET", "http://127.0.0.1:8431"), auth=stepgrant.http.Auth(), trust_env=False
)


def ask_service() -> Any:  # noqa: ANN401 - JSON
    """Have the service do what this step is: its address takes the tool, the resource and the arguments as they are."""
    step = stepgrant.current_step()
    where = {"resource": step.resource} if step.resource else {}
    return SERVICES.post(f"/{step.tool}", params=where, json=dict(step.args)).raise_for_status().json()


def look(step: stepgrant.CurrentStep) -> stepgrant.Verdict:
    """After a crash, the service says whether it happened: nobody guesses."""
    where = {"resource": step.resource} if step.resource else {}
    asked = {**where, "key": step.idempotency_key}
    found = SERVICES.post(f"/{step.tool}.reconcile", params=asked, json=dict(step.args)).raise_for_status().json()
    return stepgrant.done(found[0]) if found else stepgrant.not_done()


@stepgrant.tool(name="hosts.list", effect="read", step_id="hosts")
def list_hosts(incident: str) -> Any:  # noqa: ANN401 - JSON
    """Which hosts took part."""
    return ask_service()


@stepgrant.tool(name="host.snapshot", effect="read", resource="host/{host}", step_id="snapshot-{host}")
def snapshot(host: str) -> Any:  # noqa: ANN401 - JSON
    """As it was when it was first looked at: a resumed run keeps that, and does not look again."""
    return ask_service()


@stepgrant.tool(name="logs.search", effect="read", resource="host/{host}", step_id="logs-{host}", retry_failed=True)
def search_logs(host: str, words: str) -> Any:  # noqa: ANN401 - JSON
    """What it finds is about customers; policy labels the run."""
    return ask_service()


@stepgrant.tool(name="evidence.store", effect="idempotent", resource="incident/{incident}", step_id="store-{name}")
def store(incident: str, name: str, content: Any) -> Any:  # noqa: ANN401 - JSON
    """Into the locker, once for each name."""
    return ask_service()


@stepgrant.tool(name="status.post", effect="once", step_id="status-{number}", reconcile=look)
def post_status(number: int, text: str) -> Any:  # noqa: ANN401 - JSON
    """The whole world reads it."""
    return ask_service()


def gather(incident: str) -> list[str]:
    """Every host: its state, its logs, both into the locker."""
    kept = []
    for host in list_hosts(incident):
        kept.append(store(incident, f"state-{host}", snapshot(host))["id"])
        kept.append(store(incident, f"logs-{host}", search_logs(host, "failed"))["id"])
    return kept


def main(incident: str = "INC-31") -> int:
    """The same code whether it starts or comes back."""
    try:
        with stepgrant.run(incident, agent="responder", labels={"incident": incident}) as run:
            post_status(1, "We are looking into failed logins.")
            kept = gather(incident)
            try:
                post_status(2, "Here is what we found.")
            except stepgrant.Denied as denied:
                print(f"the status page stays as it is: {', '.join(denied.reasons)}")
            run.result = kept
            print(f"{incident}: {len(kept)} pieces of evidence in the locker")
    except stepgrant.errors.RunEnded as over:
        if over.state != "completed":
            print(over)
            return 1
        print(f"{incident} is over; its evidence is in the locker")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
