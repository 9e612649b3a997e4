"""The agent of the kill matrix: every kind of step, on tokens of the broker or on database logins of Vault.

Usage: workman.py RUN_KEY. STEPGRANT_URL and STEPGRANT_WORKLOAD_KEY as always. With FAULTS_TARGET (the address of
`target.py`) its tools present tokens there; without it they write under their own login into the table `effects` of the
database that the login is for, which then is the target's book.

It plans (a recorded step), reads, puts a note (idempotent), charges a card (once, with a reconcile hook) and publishes
(once, after a person said yes). It says what it was told as `agent.py` does, and ends with COME_AGAIN where it has to
be started again. `"asks"` is the id of the approval that it waits for.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import uuid
from typing import Annotated, Any

import httpx
import psycopg

import stepgrant
from stepgrant import Credential, CurrentStep, Inject, Verdict
from stepgrant.errors import ApprovalRequired, StepgrantError

COME_AGAIN = 75  # EX_TEMPFAIL
TARGET = os.environ.get("FAULTS_TARGET", "")
EFFECT = """INSERT INTO effects (run, step, attempt, epoch, key, tool, answer)
VALUES (%s, %s, %s, %s, %s, %s, coalesce((SELECT answer FROM effects WHERE key = %s AND %s LIMIT 1), %s))
RETURNING answer"""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # plain HTTP; to load whom one trusts takes longer than all calls
http = httpx.Client(verify=NO_TLS, timeout=30, trust_env=False)
PATIENT = stepgrant.Timeouts(broker=45, lease=60, prior_credential=90)


def say(**line: Any) -> None:  # noqa: ANN401 - JSON
    """One line, out of this process when it returns."""
    os.write(1, json.dumps(line).encode() + b"\n")


def ask(path: str, args: dict[str, Any], credential: Credential, **query: str) -> Any:  # noqa: ANN401 - JSON
    """Ask the target over HTTP."""
    url = str(httpx.URL(f"{TARGET}/{path}", params=query))
    headers = credential.headers("POST", url)
    return http.post(url, json=args, headers=headers).raise_for_status().json()


def sql(credential: Credential, text: str, *values: object) -> list[Any]:
    """Ask the database under this step's login."""
    with psycopg.connect(
        host=credential.field("host"),
        port=credential.field("port"),
        dbname=credential.field("database"),
        user=credential.field("username"),
        password=credential.field("password"),
        connect_timeout=15,
    ) as session:
        return [row[0] for row in session.execute(text.encode(), values)]


def do(tool: str, args: dict[str, Any], credential: Credential) -> Any:  # noqa: ANN401 - JSON
    """Have it done, as often as it is asked; only a note is the same one for the same key."""
    step = stepgrant.current_step()
    say(acts=step.key, attempt=step.attempt, epoch=step.epoch)
    if TARGET:
        return ask(tool, args, credential)
    place = (step.run_id, step.key, step.attempt, step.epoch, step.idempotency_key, tool)
    same = tool == "note.put"
    (answer,) = sql(credential, EFFECT, *place, step.idempotency_key, same, uuid.uuid4().hex)
    return {"id": answer}


def was_it_done(step: CurrentStep, credential: Annotated[Credential, Inject]) -> Verdict:
    """The reconcile hook: only the target knows."""
    if TARGET:
        found = ask(f"{step.tool}.reconcile", dict(step.args), credential, key=step.idempotency_key)
    else:
        rows = sql(credential, "SELECT answer FROM effects WHERE key = %s ORDER BY id", step.idempotency_key)
        found = [{"id": answer} for answer in rows]
    return stepgrant.done(found[0]) if found else stepgrant.not_done(evidence="nothing under this key")


@stepgrant.step("plan", step_id="plan")
def plan() -> dict[str, Any]:
    """As a model's: another one each time."""
    return {"order": uuid.uuid4().hex}


@stepgrant.tool(name="stock.read", effect="read", step_id="read", retry_failed=True)
def read(order: str, credential: Annotated[Credential, Inject]) -> Any:  # noqa: ANN401 - JSON
    """A read."""
    return do("stock.read", {"order": order}, credential)


@stepgrant.tool(name="note.put", effect="idempotent", step_id="note", retry_failed=True)
def note(order: str, stock: str, credential: Annotated[Credential, Inject]) -> Any:  # noqa: ANN401 - JSON
    """Idempotent."""
    return do("note.put", {"order": order, "stock": stock}, credential)


@stepgrant.tool(name="card.charge", effect="once", step_id="charge", reconcile=was_it_done)
def charge(order: str, credential: Annotated[Credential, Inject]) -> Any:  # noqa: ANN401 - JSON
    """Once."""
    return do("card.charge", {"order": order}, credential)


@stepgrant.tool(name="news.publish", effect="once", step_id="publish", reconcile=was_it_done)
def publish(order: str, charge: str, credential: Annotated[Credential, Inject]) -> Any:  # noqa: ANN401 - JSON
    """Once, and only if a person says so."""
    return do("news.publish", {"order": order, "charge": charge}, credential)


def work() -> str:
    """The agent's work. Each call's value is said, and used by the next."""

    def told(step: str, value: Any) -> Any:  # noqa: ANN401 - JSON
        say(told=step, value=value)
        return value

    order = told("plan", plan())["order"]
    stock = told("read", read(order=order))
    told("note", note(order=order, stock=stock["id"]))
    charged = told("charge", charge(order=order))
    published = told("publish", publish(order=order, charge=charged["id"]))
    return str(published["id"])


def main() -> None:
    """One life."""
    try:
        with stepgrant.run(sys.argv[1], agent="worker", timeouts=PATIENT) as run:
            say(run=run.id, epoch=run.epoch)
            run.result = work()
    except ApprovalRequired as waiting:
        say(asks=waiting.approval_id)
        sys.exit(COME_AGAIN)
    except (StepgrantError, httpx.HTTPError, psycopg.Error) as stopped:
        say(stopped=getattr(stopped, "code", type(stopped).__name__), why=str(stopped)[:300])
        sys.exit(COME_AGAIN)
    say(ended=True)


if __name__ == "__main__":
    main()
