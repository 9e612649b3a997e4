"""The last chapters: the thief, the broker that is killed, and what is left of it all in the end."""

from __future__ import annotations

from signal import SIGKILL, SIGTERM
from typing import Final

from stepgrant import receipt
from stepgrant_broker.demo import evidence
from stepgrant_broker.demo.processes import Child, wait_for
from stepgrant_broker.demo.proof import take_home, verify_offline
from stepgrant_demo_real import figures, leaks, looks
from stepgrant_demo_real.refusing import ENDED, NOT_LET_IN
from stepgrant_demo_real.story import AGENT_S, Story

NO_RIGHT: Final = "42501"
ADMIN_SHUTDOWN: Final = "57P01"
STALE: Final = "stale_epoch"


def thief(story: Story) -> Child:
    """The step in doubt is settled by a look; then a thief keeps the login of the last one."""
    stage, check, witness = story.stage, story.checks.check, story.stage.witness
    undead = story.agent(role="thief")
    undead.wait_line("holding ", AGENT_S)
    step, copied = stage.step("defaults"), witness.rows("settings", story.account)
    check(
        "the next agent looked, and did not copy them again",
        step["state"] == "completed" and copied == looks.WORK["insert settings"][1],
        f"{copied} settings, the step is {step['state']}, its result {step['result']}",
    )
    check("its login was gone before the next one was made", looks.gone_before(witness.logins(), story.last.login))
    story.chapter("A thief in the agent's process keeps a login and an open session")
    story.last = story.new_login(undead, "app_activate")
    tries = ("another column", "another table", "another step's right", "the book")
    answers = [report(undead, what) for what in tries]
    check("the login gives no right but that of its step", set(answers) == {NO_RIGHT}, f"{len(tries)} tries: {answers}")
    denied = report(undead, "delete")
    check("policy gives it no other tool", denied == "tool_not_listed", denied)
    sessions = witness.sessions(story.last.login)
    check("its session is open", sessions == ["idle"], f"pg_stat_activity: {sessions}")
    undead.freeze()
    return undead


def report(child: Child, what: str) -> str:
    """What a process said of a try."""
    return child.wait_line(f"{what}: ", AGENT_S).removeprefix(f"{what}: ")


def replica(story: Story, undead: Child) -> None:
    """The next agent holds a login when the broker that it came from is killed."""
    stage, check, witness, stolen = story.stage, story.checks.check, story.stage.witness, story.last
    lock = witness.lock("accounts")
    before = [len(child.said) for child in stage.brokers]
    agent = story.agent()
    wait_for(lambda: stolen.login not in witness.roles(), AGENT_S, lambda: f"it stays; {agent.last_words()}")
    story.last = story.new_login(agent, "app_activate")
    story.waits_for_lock(agent)
    check("the stolen login was gone before the next one was made", looks.gone_before(witness.logins(), stolen.login))
    _try_again(story, undead, stolen.login)
    story.chapter("kill -9 of the broker from which the agent has its login")
    by = [
        number
        for number, child in enumerate(stage.brokers)
        if any("vault_login_made" in line and "app_activate" in line for line in tuple(child.said)[before[number] :])
    ]
    killed = stage.brokers[by[0]]
    code = killed.kill()
    check("it was killed, the other one runs", code == -SIGKILL and len(by) == 1, f"{killed.name}, signal {-code}")
    lock.release()
    code, run = agent.wait_end(AGENT_S), stage.run()
    check("the agent goes on over the other one, to the end", code == 0 and run["state"] == "completed", run["state"])
    dropped = [noted.what for noted in witness.logins() if noted.login == story.last.login]
    check("which takes back the login that it never saw", dropped == ["made", "dropped"], f"{dropped}")


def _try_again(story: Story, undead: Child, login: str) -> None:
    stage, check = story.stage, story.checks.check
    undead.thaw()
    undead.tell("go on")
    undead.wait_end(AGENT_S)
    session, password = report(undead, "open session"), report(undead, "kept password")
    log = stage.postgres.log.read_text(encoding="utf-8", errors="replace")
    check(
        "the thief's open session was ended by the database",
        session in {ADMIN_SHUTDOWN, ENDED} and "terminating connection due to administrator command" in log,
        f"the thief saw {session}; PostgreSQL's log says so, too",
    )
    refused = f'{NOT_LET_IN} "{login}"'
    check(
        "the password that it kept lets nobody in",
        password == NOT_LET_IN and refused in log,
        f"{password}; PostgreSQL's log says so of {login}",
    )
    outcomes = {what: report(undead, what) for what in ("record a result", "next step")}
    check("it can record nothing and begin nothing", set(outcomes.values()) == {STALE}, f"{outcomes}")


def end(story: Story) -> None:
    """What is left."""
    stage, check, witness = story.stage, story.checks.check, story.stage.witness
    story.chapter("What the application's database says")
    check(
        "the account is there once, and active", witness.account(story.account) == [("team", "active")], story.account
    )
    check("each piece of work was done exactly once", looks.done_once(witness.writes(), story.account))
    check("each by a login of its step's role", looks.each_by_its_own(witness.writes(), witness.logins()))
    plans = sum(agent.said.count("planning") for agent in story.agents)
    check("its name was planned once", plans == 1, f"{plans}x by {len(story.agents)} processes")
    story.chapter("What a grant of Vault costs")
    figures.measure(story)
    _proof(story)
    story.chapter("What is left")
    check("no login of the run exists", looks.all_dropped(witness.logins(), witness.roles(), witness.sessions()))
    check("no lease and no per-grant token", looks.nothing_in_vault(stage.vault.leftovers(), story.held))
    check("no secret in databases, logs, audit log or output", leaks.nothing_leaked(stage))


def _proof(story: Story) -> None:
    stage, check = story.stage, story.checks.check
    story.chapter("The receipt, with nobody left to ask")
    file, keys = take_home(stage)
    ledger = stage.local("ledger", "verify")
    check("`stepgrant ledger verify` finds nothing", ledger.process.returncode == 0, " ".join(ledger.said[-1:]))
    asked = figures.decisions_of_opa(stage)
    codes = stage.curtain()
    check("the last broker has ended as it was asked to", all(code in {0, -SIGTERM} for code in codes), f"{codes}")
    verify_offline(stage, story.checks, file, keys)
    story.chapter("What the verified entries say")
    verified = receipt.verify(file.read_bytes(), keys.read_bytes())
    events = verified.events
    check("they are complete: the run has ended", verified.complete, f"{len(events)} entries")
    decisions = sum(event.type == "decision" for event in events)
    check(
        "OPA decided", asked >= decisions > 0, f"{decisions} decisions in the entries, {asked} questions by its count"
    )
    check("policy chose issuer and role of each grant", looks.chosen_by_policy(events, figures.roles_in_policy(stage)))
    check("no lease unrecorded, no death unconfirmed", looks.leases_were_recorded(events))
    check("each epoch's logins were dead before the next epoch had one", looks.dead_before_next(events))
    for step, verdict, times in (("create", "not_done", 2), ("room", "not_done", 2), ("defaults", "done", 1)):
        check(f"the doubt about {step} was settled by a look", looks.settled(events, step, verdict, times))
    check("each resume had a fresh key and the next epoch", evidence.keys_are_fresh(events))
    check("nobody took a run from a holder whose lease still ran", evidence.leases_lapsed(events))
    check("no fenced holder got anything", evidence.fenced_got_nothing(events))
