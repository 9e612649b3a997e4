"""An agent that does what a test tells it, one line at a time, so that a test can freeze it anywhere.

Each line of standard input is a command, each answer one JSON line:

`open KEY [LEASE_S [takeover]]`  open or resume, waiting so long for another holder: `{"run", "epoch"}` or
                      `{"refused": code}`
`hold STEP`           call the tool `card.charge` as this step; inside it, commands go on, with its credential in hand
`present`             send the request of the held step to the target: `{"status", "code"}`
`ask VERB [EPOCH]`    a call to the broker, whatever this process knows of its epoch, or under another one:
                      `{"answer": "accepted"}` or `granted`
`fork VERB…`          a forked child asks for each of these, then opens the run itself: `{"child": {verb: answer}}`
`return`              leave the tool; the SDK says what came of it
`park`, `leave`       give the run back; leave the run's block

What it was told it also writes to the file FAULTS_HEARD, if that is set, as `checker.evidence` describes.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import httpx

import stepgrant
from stepgrant import Credential, Inject, _calls, _outcomes
from stepgrant._flows import drive
from stepgrant._timeouts import Patience
from stepgrant.errors import StepgrantError

TARGET: Final = os.environ.get("FAULTS_TARGET", "")
HEARD: Final = os.environ.get("FAULTS_HEARD", "")
ORDER: Final = {"order": "0"}
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP: to load whom one trusts takes longer than a call."""


def say(**line: Any) -> None:  # noqa: ANN401 - JSON
    """One line, out of this process when it returns."""
    os.write(1, json.dumps(line).encode() + b"\n")


def hear(**line: Any) -> None:  # noqa: ANN401 - JSON
    """One line for the checker."""
    if HEARD:
        with Path(HEARD).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def commands() -> Iterator[list[str]]:
    """What the test says."""
    return (line.split() for line in iter(sys.stdin.readline, ""))


class Puppet:
    """Holds one run at a time."""

    def __init__(self) -> None:
        self.key = ""
        self.opening: Any = None
        self.run: Any = None
        self.step = "pay"
        self.headers: dict[str, str] = {}

    def work(self) -> None:
        """Obey until told to return, or until the end."""
        for word, *rest in commands():
            if word == "return":
                return
            try:
                getattr(self, f"do_{word}")(*rest)
            except StepgrantError as error:
                say(refused=error.code)

    def do_open(self, key: str, lease_s: str = "0", takeover: str = "") -> None:
        patience = stepgrant.Timeouts(lease=float(lease_s))
        self.key = key
        self.opening = stepgrant.run(key, agent="worker", timeouts=patience, takeover=bool(takeover))
        self.run = self.opening.__enter__()
        hear(run=self.run.id, epoch=self.run.epoch)
        say(run=self.run.id, epoch=self.run.epoch)

    def do_park(self) -> None:
        self.run.park()
        say(parked=True)

    def do_leave(self) -> None:
        given_up = self.run._session.given_up
        self.opening.__exit__(None, None, None)
        if not given_up:
            hear(ended=True)
        say(left=True)

    def do_hold(self, step: str) -> None:
        self.step = step

        def charge_card(order: str, credential: Annotated[Credential, Inject]) -> dict[str, str]:
            self.headers = credential.headers("POST", f"{TARGET}/card.charge")
            now = stepgrant.current_step()
            hear(acts=step, attempt=now.attempt, epoch=now.epoch)
            say(holding=step)
            self.work()
            return {"order": order}

        guarded = stepgrant.tool(name="card.charge", effect="once", step_id=step)(charge_card)
        value = guarded(**ORDER)
        hear(told=step, value=value)
        say(returned=value)

    def do_present(self) -> None:
        answer = httpx.post(f"{TARGET}/card.charge", json=ORDER, headers=self.headers, verify=NO_TLS, trust_env=False)
        say(status=answer.status_code, code=answer.json().get("code"))

    def do_ask(self, verb: str, epoch: str = "") -> None:
        say(answer=self.ask(verb, int(epoch or self.run.epoch)))

    def ask(self, verb: str, epoch: int) -> str:
        session, asked = self.run._session, int(time.time() * 1000)
        call, kind = CALLS[verb](session.run_id, self.step, epoch)
        # Around the session, which would refuse by itself: it is the broker that must.
        answer = drive(session._caller.call(call, kind, patience=Patience(10)), session.blocking)
        hear(accepted=verb, epoch=epoch, asked=asked)
        return "granted" if isinstance(answer, _outcomes.Run) else "accepted"

    def do_fork(self, *verbs: str) -> None:
        child = os.fork()
        if child == 0:
            try:
                say(child={verb: self.tried(verb) for verb in (*verbs, "open")})
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    def tried(self, verb: str) -> str:
        try:
            if verb != "open":
                return self.ask(verb, self.run.epoch)
            stepgrant.run(self.key, agent="worker", timeouts=stepgrant.Timeouts(lease=0)).__enter__()
        except StepgrantError as error:
            return error.code
        return "opened"


def _begin(run: str, step: str, epoch: int) -> tuple[Any, Any]:
    action = _calls.Action("card.charge", json.dumps(ORDER).encode(), "once")
    return _calls.begin(run, step, epoch, action, "explicit"), _outcomes.Outcome


def _record(run: str, _: str, epoch: int) -> tuple[Any, Any]:
    call = _calls.record(run, "noted", epoch, name="n", args=b"{}", result=b"1", withheld=False, source="explicit")
    return call, _outcomes.RecordOutcome


def _reconcile(run: str, step: str, epoch: int) -> tuple[Any, Any]:
    call = _calls.reconcile(run, step, epoch, 1, verdict="done", result=b"{}", evidence=None, via=f"{step}~reconcile~1")
    return call, _outcomes.Settled


Maker = Callable[[str, str, int], tuple[Any, Any]]
CALLS: Final[dict[str, Maker]] = {
    "heartbeat": lambda run, _, epoch: (_calls.heartbeat(run, epoch), _outcomes.Held),
    "begin": _begin,
    "begin-new": lambda run, _, epoch: _begin(run, "another", epoch),
    "record": _record,
    "complete": lambda run, step, epoch: (_calls.complete(run, step, epoch, 1, result=b"{}"), _outcomes.Settled),
    "fail": lambda run, step, epoch: (
        _calls.fail(run, step, epoch, 1, outcome="not_executed", error=""), _outcomes.Settled,
    ),
    "suspend": lambda run, step, epoch: (_calls.suspend(run, step, epoch, 1), _outcomes.Settled),
    "reconcile": _reconcile,
    "park": lambda run, _, epoch: (_calls.park(run, epoch, "requested"), _outcomes.Held),
    "end-complete": lambda run, _, epoch: (_calls.end(run, epoch, "complete", b"{}"), _outcomes.Held),
    "end-fail": lambda run, _, epoch: (_calls.end(run, epoch, "fail", b"{}"), _outcomes.Held),
    "end-cancel": lambda run, _, epoch: (_calls.end(run, epoch, "cancel", None), _outcomes.Held),
}  # fmt: skip
"""Everything that a holder may ask for."""


if __name__ == "__main__":
    Puppet().work()
