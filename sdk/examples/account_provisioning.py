# ruff: noqa: ARG001, INP001, T201 - a program, run as a file; its tools send the arguments that they are called with
"""Accounts, coming and going: a function that is a whole run, which a worker can finish for whoever started it.

`join` makes an account and its groups. `leave` takes the groups away, and then a person has to allow that the account
is disabled. Both are `@stepgrant.agent`s: `start` only queues a run; `run` does it here; a worker picks up what is new,
crashed, or parked and answered. The one who makes accounts cannot disable any, and the other way round.

    stepgrant dev -- python _target.py python account_provisioning.py join ada
    stepgrant dev -- python _target.py stepgrant work account_provisioning:join account_provisioning:leave
"""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx

import stepgrant

ASKED_A_PERSON = 75  # EX_TEMPFAIL: come again

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


@stepgrant.tool(name="person.read", effect="read", resource="person/{login}", step_id="person")
def read_person(login: str) -> Any:  # noqa: ANN401 - JSON
    """What the directory knows. Later steps use what was read first, also in a later life."""
    return ask_service()


@stepgrant.tool(name="account.create", effect="once", resource="person/{login}", step_id="create", reconcile=look)
def create_account(login: str, name: str) -> Any:  # noqa: ANN401 - JSON
    """Two accounts for one person is what this must never give."""
    return ask_service()


@stepgrant.tool(name="group.add", effect="idempotent", resource="person/{login}", step_id="add-{group}")
def add_to_group(login: str, group: str) -> Any:  # noqa: ANN401 - JSON
    """Being in a group twice is being in it."""
    return ask_service()


@stepgrant.tool(name="group.remove", effect="idempotent", resource="person/{login}", step_id="remove-{group}")
def remove_from_group(login: str, group: str) -> Any:  # noqa: ANN401 - JSON
    """Not being in it twice, neither."""
    return ask_service()


@stepgrant.tool(name="account.disable", effect="once", resource="person/{login}", step_id="disable", reconcile=look)
def disable_account(login: str) -> Any:  # noqa: ANN401 - JSON
    """A person has to allow it: somebody may only have changed teams."""
    return ask_service()


@stepgrant.agent("joiner")
def join(person: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Somebody comes. The input is stored with the run, so any worker can go on with it."""
    known = read_person(person["login"])
    account = create_account(person["login"], known["name"])
    return {"account": account["id"], "groups": [add_to_group(person["login"], one)["id"] for one in known["groups"]]}


@stepgrant.agent("leaver")
def leave(person: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Somebody goes: what they can reach first, the account last."""
    known = read_person(person["login"])
    removed = [remove_from_group(person["login"], one)["id"] for one in known["groups"]]
    return {"account": disable_account(person["login"])["id"], "groups": removed}


def main(what: str = "join", login: str = "ada") -> int:
    """Do it here and now, whether it starts or comes back."""
    try:
        done = {"join": join, "leave": leave}[what].run({"login": login}, run_key=f"{what}-{login}")
    except stepgrant.ApprovalRequired as asked:
        print(f"{login} keeps the account until somebody says: stepgrant approval approve {asked.approval_id}")
        return ASKED_A_PERSON
    except stepgrant.Denied as denied:
        print(f"{what} of {login} goes no further: {', '.join(denied.reasons)}")
        return 1
    except stepgrant.errors.RunEnded as over:
        print(over)
        return 0 if over.state == "completed" and not over.other_input else 1
    print(f"{what} of {login}: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
