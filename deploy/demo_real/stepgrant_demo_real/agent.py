"""An agent that makes an account in an application's database, as a user of Stepgrant would write it.

Four steps, each with a database login of its own that policy chooses the rights of: the account's row, its room (a
schema and quotas), its settings from the plan's defaults, and activating it. Each may be done once only; where nobody
knows whether it was, a hook looks with a login that can only read. Nothing in it knows that it may be killed.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any
from uuid import uuid4

import psycopg
from psycopg import sql

import stepgrant
from stepgrant import Credential, CurrentStep, Inject, Verdict

RESOURCE = "app-db"
QUOTAS = {"seats": "25", "storage_gib": "100"}


def say(line: str) -> None:
    """One line, at once and in one piece: a warning of another thread must not get into it."""
    print(f"{line}\n", end="", flush=True)


def database(login: Credential) -> psycopg.Connection[tuple[Any, ...]]:
    """The application's database, under this step's login. Every statement is its own transaction."""
    say(f"login {login.field('username')}")
    return psycopg.connect(
        host=login.field("host"),
        port=login.field("port"),
        dbname=login.field("database"),
        user=login.field("username"),
        password=login.field("password"),
        sslmode="disable",  # loopback; the gate between is no TLS endpoint
        autocommit=True,
    )


def ask(login: Credential, query: str, *values: str) -> list[Any]:
    """The first column of what the database answers."""
    with database(login) as connection:
        return [row[0] for row in connection.execute(query, values)]


@stepgrant.step("plan", step_id="plan")
def choose_name(customer: str) -> str:
    """A name for the account, like a model's: another answer each time."""
    say("planning")
    return f"{customer}_{uuid4().hex[:8]}"


# ------------------------------------------------------------------------------------------------------ 1: the account


def was_created(step: CurrentStep, login: Annotated[Credential, Inject]) -> Verdict:
    """The row carries the step's idempotency key."""
    found = ask(login, "select account from accounts where idempotency_key = %s", step.idempotency_key)
    return stepgrant.done(found[0]) if found else stepgrant.not_done(evidence="no such row")


@stepgrant.tool(name="account.create", effect="once", step_id="create", resource=RESOURCE, reconcile=was_created)
def create(account: str, plan: str, login: Annotated[Credential, Inject]) -> str:
    """The row of the account."""
    key = stepgrant.current_step().idempotency_key
    with database(login) as connection:
        connection.execute("insert into accounts values (%s, %s, 'new', %s)", (account, plan, key))
    return account


# --------------------------------------------------------------------------------------------------------- 2: its room

SCHEMAS = "select nspname from pg_namespace where nspname = %s"
NAMES_OF_QUOTAS = "select name from quotas where account = %s"


def has_room(step: CurrentStep, login: Annotated[Credential, Inject]) -> Verdict:
    """All of it, or not done: the tool makes what is missing."""
    account = str(step.args["account"])
    schemas, quotas = ask(login, SCHEMAS, account), ask(login, NAMES_OF_QUOTAS, account)
    if schemas and set(quotas) == set(QUOTAS):
        return stepgrant.done(sorted(quotas))
    return stepgrant.not_done(evidence=f"{len(schemas)} schema and {len(quotas)} of {len(QUOTAS)} quotas are there")


@stepgrant.tool(name="account.room", effect="once", step_id="room", resource=RESOURCE, reconcile=has_room)
def make_room(account: str, login: Annotated[Credential, Inject]) -> list[str]:
    """Its schema and its quotas; what an earlier attempt made stays."""
    with database(login) as connection:
        if not connection.execute(SCHEMAS, (account,)).fetchall():
            schema = sql.Identifier(account)
            connection.execute(sql.SQL("create schema {} authorization tenant_owner").format(schema))
        there = {row[0] for row in connection.execute(NAMES_OF_QUOTAS, (account,))}
        for name in sorted(set(QUOTAS) - there):
            connection.execute("insert into quotas values (%s, %s, %s)", (account, name, QUOTAS[name]))
    return sorted(QUOTAS)


# ----------------------------------------------------------------------------------------------------- 3: its settings


def has_settings(step: CurrentStep, login: Annotated[Credential, Inject]) -> Verdict:
    """They are copied by one statement, so one of them means all."""
    found = ask(login, "select name from settings where account = %s order by name", str(step.args["account"]))
    return stepgrant.done(found) if found else stepgrant.not_done(evidence="no settings")


@stepgrant.tool(name="account.defaults", effect="once", step_id="defaults", resource=RESOURCE, reconcile=has_settings)
def copy_defaults(account: str, plan: str, login: Annotated[Credential, Inject]) -> list[str]:
    """The defaults of its plan become its settings."""
    copy = "insert into settings select %s, name, value from plans where plan = %s returning name"
    with database(login) as connection:
        return sorted(row[0] for row in connection.execute(copy, (account, plan)))


# ------------------------------------------------------------------------------------------------------- 4: activating


def is_active(step: CurrentStep, login: Annotated[Credential, Inject]) -> Verdict:
    """Its state says so."""
    found = ask(login, "select state from accounts where account = %s", str(step.args["account"]))
    return stepgrant.done("active") if found == ["active"] else stepgrant.not_done(evidence=f"state {found}")


@stepgrant.tool(name="account.activate", effect="once", step_id="activate", resource=RESOURCE, reconcile=is_active)
def activate(account: str, login: Annotated[Credential, Inject]) -> str:
    """One column of one row."""
    with database(login) as connection:
        connection.execute("update accounts set state = 'active' where account = %s", (account,))
    return "active"


def main() -> int:
    """Provision the account that the run's input asks for. `agent RUN_KEY [CUSTOMER PLAN]`."""
    run_key, *given = sys.argv[1:]
    known: dict[str, Any] = {"input": {"customer": given[0], "plan": given[1]}} if given else {}
    with stepgrant.run(run_key, agent="provisioner", **known) as run:
        say(f"epoch {run.epoch}")
        account, plan = choose_name(run.input["customer"]), run.input["plan"]
        say(f"account {account}")
        create(account, plan)
        say("created")
        make_room(account)
        say("has room")
        copy_defaults(account, plan)
        say("has settings")
        run.result = activate(account)
        say("active")
    return 0


if __name__ == "__main__":
    sys.exit(main())
