"""The agent's side of the adapter suite: the play that a harness's program acts out, once in each process.

    play = Play.from_environment()
    model = a chat model of the framework that answers its n-th question with play.turn(n), and tells play.shown(...)
    tools = [wrap(one) for one in play.tools(asynchronous=False)] + [the framework's own `odd`]
    sys.exit(play.act_out(lambda: run the agent; "paused" or its last words))

Rules:
* Nothing in here knows that processes are killed. What survives is in `folder`, and in the broker.
* It prints one JSON line: `ended`, `paused` or `stopped`.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from stepgrant import http
from stepgrant._context import CurrentStep, current_credential
from stepgrant._errors import StepgrantError
from stepgrant._reconcile import Verdict, done, not_done, unknown
from stepgrant._tool import tool
from stepgrant.testing._adapter_target import KILL, NO_TLS

VARIABLE: Final = "STEPGRANT_ADAPTER_PLAY"
COME_AGAIN: Final = 75
SHOWN: Final = "shown.jsonl"
_TIMEOUT_S: Final = 40.0


@dataclass(frozen=True)
class Asked:
    """A call that the scripted model asks for."""

    tool: str
    args: Mapping[str, Any]
    id: str


@dataclass(frozen=True)
class Play:
    """What this process does.

    Args:
        thread: the conversation's name, which is the run's key.
        agent: the agent's name.
        folder: where the framework may save; what is there is searched for credentials.
        target: the address that the tools act on.
        turns: the model's answers: calls, or its last words.
        going_on: resume what is saved, instead of beginning.
        edits: arguments to put into the saved calls of these ids before resuming, as a person could.
        verdict: what the reconcile hook says: `truth` (it asks the target) or `unknown`.
        dying: a tool of this name is killed by the target, with its grant spent and nothing done.
    """

    thread: str
    agent: str
    folder: Path
    target: str
    turns: Sequence[Sequence[Asked] | str]
    going_on: bool = False
    edits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verdict: str = "truth"
    dying: str = ""

    @classmethod
    def from_environment(cls) -> Play:
        """The play of this process."""
        said = json.loads(os.environ[VARIABLE])
        turns = [turn if isinstance(turn, str) else [Asked(**call) for call in turn] for turn in said.pop("turns")]
        return cls(**{**said, "folder": Path(said["folder"]), "turns": turns})

    def turn(self, number: int) -> Sequence[Asked] | str:
        """What the model answers for the `number`-th time, from 0; its last words once the script is over."""
        return self.turns[number] if number < len(self.turns) else "done"

    def shown(self, what: object) -> None:
        """Note what the model is shown: text, or what becomes text by `str`."""
        with (self.folder / SHOWN).open("a", encoding="utf-8") as file:
            file.write(json.dumps(str(what)) + "\n")

    def act_out(self, perform: Callable[[], str]) -> int:
        """Run the agent and say how it ended. Returns the exit code. `perform` gives "paused", or the last words."""
        try:
            words = perform()
        except StepgrantError as error:
            return _say({"stopped": error.code, "why": str(error)[:500]}, COME_AGAIN)
        except Exception as error:  # noqa: BLE001  # whatever leaves the framework, the program ends with it
            return _say({"stopped": type(error).__name__, "why": str(error)[:500]}, COME_AGAIN)
        return _say({"paused": True}, COME_AGAIN) if words == "paused" else _say({"ended": words}, 0)

    # ------------------------------------------------------------------------------------------------------- tools

    def do(self, name: str, **args: Any) -> Any:  # noqa: ANN401  # JSON
        """Have the target do it, with the credential of the step around this call."""
        with httpx.Client(auth=http.Auth(), verify=NO_TLS, timeout=_TIMEOUT_S, trust_env=False) as client:
            asked = client.post(f"{self.target}/{name}", json=args, headers=self._headers(name))
            return asked.raise_for_status().json()

    async def ado(self, name: str, **args: Any) -> Any:  # noqa: ANN401  # JSON
        """As `do`."""
        async with httpx.AsyncClient(auth=http.Auth(), verify=NO_TLS, timeout=_TIMEOUT_S, trust_env=False) as client:
            asked = await client.post(f"{self.target}/{name}", json=args, headers=self._headers(name))
            return asked.raise_for_status().json()

    def tools(self, *, asynchronous: bool) -> list[Callable[..., Any]]:
        """The suite's tools, declared with `stepgrant.tool`, as `def` or as `async def`."""
        made = [*self._harmless(), *self._harmful()]
        return [self._face(function, asynchronous=asynchronous, **declared) for function, declared in made]

    def _harmless(self) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
        def look(topic: str) -> Any:  # noqa: ANN401  # JSON
            """Look something up."""
            return ("look", {"topic": topic})

        def note(text: str) -> Any:  # noqa: ANN401  # JSON
            """Put a note."""
            return ("note", {"text": text})

        def fail(topic: str) -> Any:  # noqa: ANN401  # JSON
            """Look something up that is not there."""
            return ("fail", {"topic": topic})

        return [
            (look, {"effect": "read"}),
            (note, {"effect": "idempotent"}),
            (fail, {"effect": "read"}),
        ]

    def _harmful(self) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
        def pay(invoice: str, amount: int = 7) -> Any:  # noqa: ANN401  # JSON
            """Pay an invoice."""
            return ("pay", {"invoice": invoice, "amount": amount})

        def send(text: str) -> Any:  # noqa: ANN401  # JSON
            """Send a message."""
            return ("send", {"text": text})

        def order(item: str) -> Any:  # noqa: ANN401  # JSON
            """Order something, which a person has to approve."""
            return ("order", {"item": item})

        def wipe(disk: str) -> Any:  # noqa: ANN401  # JSON
            """Wipe a disk, which policy denies."""
            return ("wipe", {"disk": disk})

        def leak(text: str) -> Any:  # noqa: ANN401  # JSON
            """Return what must not be returned."""
            return ("leak", {"text": text})

        def drop(text: str) -> Any:  # noqa: ANN401  # JSON
            """Send a message and lose the answer."""
            return ("drop", {"text": text})

        def was_it_done(step: CurrentStep) -> Verdict:
            return self._look_at_target(step)

        return [
            (pay, {"effect": "once", "reconcile": was_it_done}),
            *((one, {"effect": "once"}) for one in (send, order, wipe, leak, drop)),
        ]

    def _face(self, function: Callable[..., Any], *, asynchronous: bool, **declared: Any) -> Callable[..., Any]:  # noqa: ANN401  # those of `tool`
        if asynchronous:

            async def acall(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # those of the function
                name, given = function(*args, **kwargs)
                return _after(name, await self.ado(name, **given))

            call: Callable[..., Any] = acall
        else:

            def blocking(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as above
                name, given = function(*args, **kwargs)
                return _after(name, self.do(name, **given))

            call = blocking
        call.__name__ = call.__qualname__ = function.__name__
        call.__doc__ = function.__doc__
        call.__annotations__ = dict(function.__annotations__)
        setattr(call, "__signature__", inspect.signature(function, eval_str=True))  # noqa: B010  # not declared
        guarded: Callable[..., Any] = tool(**declared)(call)
        return guarded

    def _look_at_target(self, step: CurrentStep) -> Verdict:
        if self.verdict == "unknown":
            return unknown(evidence="the target keeps no books")
        with httpx.Client(auth=http.Auth(), verify=NO_TLS, timeout=_TIMEOUT_S, trust_env=False) as client:
            url = f"{self.target}/{step.tool}.reconcile"
            found = client.post(url, params={"key": step.idempotency_key}, json=dict(step.args)).raise_for_status()
        known = found.json()
        return done(known[0]) if known else not_done()

    def _headers(self, name: str) -> dict[str, str]:
        return {KILL: str(os.getpid())} if name == self.dying else {}


def _after(name: str, answer: Any) -> Any:  # noqa: ANN401  # JSON
    """What the tools do once the target answered."""
    if name == "fail":
        raise LookupError("no such topic")
    if name == "drop":
        raise ConnectionResetError("the answer was lost")
    if name == "leak":
        return {"token": current_credential().field("token")}
    return answer


def _say(line: Mapping[str, object], code: int) -> int:
    os.write(1, json.dumps(line).encode() + b"\n")
    return code
