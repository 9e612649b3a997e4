"""The story beside the real thing. Each chapter does something to real processes and checks what came of it.

The moments are made to last by what happens in any network and database: a connection that hangs, a table that is
locked. Nothing in the agent waits for the demo. What is checked is looked up where it cannot be embellished: exit codes
of the operating system, the application's tables, PostgreSQL's roles and sessions, Vault's lists, the ledger.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from signal import SIGKILL
from typing import Final

import httpx
import psycopg

from stepgrant_broker.demo.checks import Broken, Checks
from stepgrant_broker.demo.processes import Child, wait_for
from stepgrant_broker.demo.stage import Stage
from stepgrant_broker.demo.words import Words
from stepgrant_demo_real import looks
from stepgrant_demo_real.refusing import NOT_LET_IN, refusal
from stepgrant_demo_real.stage import STORE, RealStage
from stepgrant_demo_real.vaulting import MAKER, ROLES
from stepgrant_demo_real.witness import Lock, Noted
from stepgrant_services import ServiceError

AGENT_S: Final = 40.0
"""How long to wait for something that an agent does: a lease of 3 s and a slow machine are in it."""


@dataclass
class Story:
    """What the chapters share."""

    stage: RealStage
    checks: Checks
    words: Words
    agents: list[Child] = field(default_factory=list)
    account: str = ""
    last: Noted = field(init=False)
    """The login that the last agent held."""
    locks: dict[str, Lock] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    """What was alive in Vault while the agent held a login."""

    def chapter(self, title: str) -> None:
        """From here on checks belong to this chapter."""
        self.checks.chapter = title

    def agent(self, *arguments: str, role: str = "agent") -> Child:
        """The next agent process."""
        child = self.stage.start_agent(f"agent-{len(self.agents) + 1}", role, *arguments)
        self.agents.append(child)
        return child

    def new_login(self, agent: Child, role: str) -> Noted:
        """The login of this role that exists now, once it does; the newest. Raises `Broken`."""
        witness = self.stage.witness

        def found() -> list[Noted]:
            alive = set(witness.roles())
            return [noted for noted in looks.made(witness.logins()) if noted.login in alive and noted.role == role]

        wait_for(lambda: bool(found()), AGENT_S, lambda: f"no login of {role} was made; {agent.last_words()}")
        return found()[-1]

    def waits_for_lock(self, agent: Child) -> None:
        """Wait until a session of the last login waits for a locked table. Raises `Broken`."""
        wait_for(
            lambda: self.stage.witness.sessions(self.last.login) == ["Lock"],
            AGENT_S,
            lambda: f"{self.last.login} does not wait for a lock; {agent.last_words()}",
        )

    def pids(self) -> dict[str, int]:
        """The processes of the run by name."""
        children = {child.name: child.pid for child in (*self.agents, *self.stage.brokers)}
        return children | {one.name: one.pid for one in (self.stage.opa, self.stage.vault, self.stage.postgres)}

    def kill(self, agent: Child) -> None:
        """`kill -9`, and check that this is what it died of."""
        code = agent.kill()
        self.checks.check("the agent was killed", code == -SIGKILL, f"pid {agent.pid}, signal {-code}")


def tell_story(stage: Stage, checks: Checks, words: Words) -> None:
    """All chapters in order. Raises `Broken` where going on would say nothing."""
    from stepgrant_demo_real.story_end import end, replica, thief

    real = RealStage(stage.folder, stage.processes)
    try:
        with ExitStack() as stack:
            story = Story(real, checks, words)
            set_up(story, stack)
            killed_with_a_login(story)
            killed_half_way(story)
            finished(story)
            killed_after_the_work(story)
            undead = thief(story)
            replica(story, undead)
            end(story)
            pids = story.pids()
        alive = [name for name, pid in pids.items() if _runs(pid)]
        told = f"{len(pids)} processes of ours and of the services" + (f"; left: {', '.join(alive)}" if alive else "")
        checks.check("no process is left", not alive, told)
    except (ServiceError, psycopg.Error) as error:
        raise Broken(f"{type(error).__name__}: {error}") from error


def set_up(story: Story, stack: ExitStack) -> None:
    """Services and brokers run; nobody gets into the database without a grant."""
    story.chapter("OPA, Vault, PostgreSQL, and two brokers")
    stage, check = story.stage, story.checks.check
    stage.raise_curtain(stack)
    versions = {
        "OPA": _opa_version(stage),
        "Vault": str(stage.vault.request("GET", "sys/health")["version"]),
        "PostgreSQL": stage.witness.version(),
    }
    pids = {stage.opa.pid, stage.vault.pid, stage.postgres.pid} - {0}
    check("they are three servers", len(pids) == 3 and all(versions.values()), _told(versions))
    alive = [child.pid for child in stage.brokers if child.process.poll() is None]
    sessions = stage.witness.sessions_of(STORE)
    told = f"pids {alive}, {sessions} sessions of theirs in PostgreSQL"
    check("two brokers share one database", len(alive) == len(stage.brokers) == 2 <= sessions, told)
    doctor = stage.local("doctor")
    check("`stepgrant doctor` finds nothing wrong", doctor.process.returncode == 0, " ".join(doctor.said[-1:]))
    rights = {role: stage.witness.may(role) for role in ROLES}
    check(
        "five kinds of login, each with other rights",
        len({tuple(may) for may in rights.values()}) == len(ROLES) and all(rights.values()),
        "; ".join(f"{role.removeprefix('app_')}: {', '.join(may)}" for role, may in rights.items()),
    )
    answers = {user: _let_in(stage, user) for user in (*ROLES, MAKER, "v-guessed")}
    check(
        "without a grant the database lets nobody in, and Vault has given out nothing",
        set(answers.values()) == {NOT_LET_IN} and not stage.witness.roles() and not stage.vault.leftovers(),
        f"{len(answers)} names tried: {', '.join(sorted(set(answers.values())))}",
    )


def killed_with_a_login(story: Story) -> None:
    """Kill -9 between mint and use."""
    story.chapter("First kill -9: a login in its hand, not used yet")
    stage, check, witness = story.stage, story.checks.check, story.stage.witness
    stage.before_database.hold()
    agent = story.agent("acme", "team")
    login = story.new_login(agent, "app_create")
    wait_for(lambda: stage.before_database.waiting > 0, AGENT_S, lambda: f"it does not connect; {agent.last_words()}")
    story.account = agent.wait_line("account ", AGENT_S).removeprefix("account ")
    story.held = stage.vault.leftovers()
    check(
        "it holds a login that the database knows, and was not let in with it yet",
        witness.roles() == [login.login] and not witness.sessions() and agent.line(f"login {login.login}") is not None,
        f"{login.login} in pg_roles, no session; Vault has {len(story.held)} things for it",
    )
    story.kill(agent)
    stage.before_database.let_through()
    check("nothing is done", not witness.writes(), f"{len(witness.writes())} writes")
    story.last = login


def killed_half_way(story: Story) -> None:
    """The table of quotas is locked: the next agent's session waits there, with the schema made."""
    stage, check, witness = story.stage, story.checks.check, story.stage.witness
    story.locks["quotas"] = witness.lock("quotas")
    agent = story.agent()
    agent.wait_line("created", AGENT_S)
    check("its login is gone before the next one is made", looks.gone_before(witness.logins(), story.last.login))
    used = f"authorized: user={story.last.login}" in stage.postgres.log.read_text(encoding="utf-8", errors="replace")
    check("nobody ever got in with it", not used, "by PostgreSQL's log of connections")
    named = agent.line("account ")
    check(
        "the account that was planned is made, once",
        named == f"account {story.account}" and witness.account(story.account) == [("team", "new")],
        f"{story.account}: {witness.account(story.account)}",
    )
    story.chapter("Second kill -9: half of a step is done")
    story.last = story.new_login(agent, "app_room")
    story.waits_for_lock(agent)
    story.kill(agent)
    half = witness.schemas(story.account), witness.rows("quotas", story.account)
    check("the schema is there, its quotas are not", half == (1, 0), f"{half[0]} schema, {half[1]} quotas")
    waiting = witness.sessions(story.last.login)
    check("the dead agent's session goes on waiting to write them", waiting == ["Lock"], f"it waits for: {waiting}")


def finished(story: Story) -> None:
    """The session of the dead ends; what is missing is made."""
    check, witness, old = story.checks.check, story.stage.witness, story.last
    story.locks["settings"] = witness.lock("settings")
    agent = story.agent()
    wait_for(
        lambda: old.login not in witness.roles() and not witness.sessions(old.login),
        AGENT_S,
        lambda: f"{old.login} is still there; {agent.last_words()}",
    )
    after = witness.rows("quotas", story.account)
    ended = [noted.sessions for noted in witness.logins() if noted.login == old.login and noted.what == "dropped"]
    told = f"{ended} session ended by Vault, {after} quotas"
    check("login and session are ended before it could", after == 0 and ended == [1], told)
    story.locks.pop("quotas").release()
    agent.wait_line("has room", AGENT_S)
    check("they were gone before the next login was made", looks.gone_before(witness.logins(), old.login))
    whole = witness.schemas(story.account), witness.rows("quotas", story.account)
    wrote = [write.what for write in witness.writes() if write.what in {"create schema", "insert quotas"}]
    check(
        "the next agent looked, and made what was missing",
        whole == (1, 2) and wrote == ["create schema", "insert quotas", "insert quotas"],
        f"{whole[0]} schema, {whole[1]} quotas; in the book: {', '.join(wrote)}",
    )


def killed_after_the_work(story: Story) -> None:
    """The work is done while the network to the brokers hangs."""
    story.chapter("Third kill -9: all of a step is done, nobody recorded it")
    stage, check, witness, agent = story.stage, story.checks.check, story.stage.witness, story.agents[-1]
    story.last = story.new_login(agent, "app_defaults")
    story.waits_for_lock(agent)
    stage.before_brokers.hold()
    story.locks.pop("settings").release()
    wait_for(
        lambda: witness.rows("settings", story.account) > 0,
        AGENT_S,
        lambda: f"no settings were copied; {agent.last_words()}",
    )
    story.kill(agent)
    stage.before_brokers.let_through()
    state = stage.step("defaults")["state"]
    check(
        "the settings are copied, and neither agent nor broker know",
        state in {"started", "in_doubt"} and agent.line("has settings") is None,
        f"{witness.rows('settings', story.account)} settings; for the broker the step is {state}",
    )


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _opa_version(stage: RealStage) -> str:
    answer = httpx.post(f"{stage.opa.url}/v1/data", json={}, params={"provenance": "true"}, trust_env=False)
    return str(answer.json()["provenance"]["version"])


def _let_in(stage: RealStage, user: str) -> str:
    try:
        psycopg.connect(
            host="127.0.0.1", port=stage.before_database.port, dbname="app", user=user, password="guessed",  # noqa: S106
            sslmode="disable",
        ).close()  # fmt: skip
    except psycopg.Error as error:
        return refusal(error)
    return "let in"


def _told(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
