# ruff: noqa: ARG001, INP001, T201 - a program, run as a file; its tools send the arguments that they are called with
"""A change request: prepared today, allowed by somebody tomorrow, made once, checked, closed.

The agent parks while it waits: no process runs, no credential lives, and the question stays. What a person allows is
exactly this change of exactly these hosts. If the change looks different when the agent comes back, it is another
question, and the old answer is worth nothing.

    stepgrant dev -- python _target.py python change_request.py CHG-7
"""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx

import stepgrant

PARKED = 75  # EX_TEMPFAIL: come again

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


@stepgrant.tool(name="change.diff", effect="read", resource="change/{change}", step_id="diff")
def read_diff(change: str) -> Any:  # noqa: ANN401 - JSON
    """What the change would do; read once, and the same for the rest of the run."""
    return ask_service()


@stepgrant.tool(name="change.apply", effect="once", resource="change/{change}", step_id="apply-{host}", reconcile=look)
def apply(change: str, host: str, lines: int) -> Any:  # noqa: ANN401 - JSON
    """Policy asks a person about each host."""
    return ask_service()


@stepgrant.tool(name="change.check", effect="read", resource="change/{change}")
def check(change: str, host: str) -> Any:  # noqa: ANN401 - JSON
    """Is the host well?"""
    return ask_service()


@stepgrant.tool(name="change.close", effect="idempotent", resource="change/{change}", step_id="close")
def close(change: str, hosts: list[str]) -> Any:  # noqa: ANN401 - JSON
    """Says in the ticket what was done."""
    return ask_service()


def open_questions(change: str, diff: dict[str, Any]) -> list[str]:
    """Asks about all hosts at once, so that a person sees the whole change and not one host a day.

    Asking ahead gives nothing: each host is decided again when its turn comes.
    """
    asked = [apply.prepare(change, host, diff["lines"]) for host in diff["hosts"]]
    return [str(one.approval_id) for one in asked if one.outcome == "approval_required"]


def main(change: str = "CHG-7") -> int:
    """The same code whether it starts or comes back."""
    try:
        with stepgrant.run(change, agent="changes", input={"change": change}, labels={"kind": "change"}) as run:
            diff = read_diff(change)
            questions = open_questions(change, diff)
            if questions:
                run.park()
                print(f"{change} waits for people, who answer each host, and for you to start it again then:")
                for question in questions:
                    print(f"  stepgrant approval approve {question}")
                return PARKED
            for host in diff["hosts"]:
                made = apply(change, host, diff["lines"])
                check(change, host)
                print(f"{host}: {made['id']}")
            run.result = close(change, diff["hosts"])
    except stepgrant.ApprovalRequired as asked:
        print(f"the answer ran out, or was for something else: stepgrant approval show {asked.approval_id}")
        return PARKED
    except stepgrant.Denied as denied:
        print(f"{change} will not be made: {', '.join(denied.reasons)}")
        return 1
    except stepgrant.errors.RunEnded as over:
        if over.state != "completed":
            print(over)
            return 1
        print(f"{change} is made and closed")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
