"""One case's world: a broker, a target, a person, and a framework's program in process after process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from stepgrant.receipt import Event
from stepgrant.testing._adapter_play import SHOWN, VARIABLE, Asked, Play
from stepgrant.testing._adapter_target import NO_TLS, AdapterBroken, Target, target_for
from stepgrant.testing._broker import TestBroker

LEASE_S: Final = 8
AGENT: Final = "adapter"
THREAD: Final = "thread-1"
_QUICK: Final[Mapping[str, Any]] = {"redeem_window_ms": 1500, "leeway_ms": 200, "sweep_ms": 50}
"""A used credential keeps others waiting for two seconds, instead of fifteen."""
_EFFECTS: Final[Mapping[str, str]] = {
    "look": "read", "fail": "read", "note": "idempotent", "pay": "once", "send": "once", "order": "once",
    "leak": "once", "drop": "once", "odd": "once",
}  # fmt: skip
"""All but `wipe`, which policy denies."""


@dataclass(frozen=True)
class Lived:
    """One life of the program: its exit code (negative: the signal), standard output and standard error."""

    code: int
    output: str
    errors: str = field(repr=False)

    @property
    def last(self) -> Mapping[str, Any]:
        """Its last line; empty if it was killed before it said one."""
        lines = [line for line in self.output.splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {}


class Harness(Protocol):
    """What a framework's adapter gives the suite."""

    @property
    def name(self) -> str:
        """For reports."""
        ...

    @property
    def edits(self) -> bool:
        """Whether people can change the arguments of a saved call in this framework (`Play.edits`)."""
        ...

    @property
    def tells_errors(self) -> bool:
        """Whether this program shows the exceptions of tools to the model, instead of ending with them."""
        ...

    def live(self, environment: Mapping[str, str]) -> Lived:
        """Run the program once in a new process, with exactly these variables beside the harness's own, to its end."""
        ...


class World:
    """Everything that a case does and looks at. Failing checks raise `AdapterBroken` with the whole story."""

    def __init__(self, harness: Harness, broker: TestBroker, target: Target, folder: Path) -> None:
        self.harness: Final = harness
        self.broker: Final = broker
        self.target: Final = target
        self.folder: Final = folder
        self.lives: Final[list[Lived]] = []
        self._turns: Sequence[Sequence[Asked] | str] = ()
        token = broker.host.operator("clerk")
        self._person = httpx.Client(
            base_url=broker.url,
            headers={"Authorization": f"Bearer {token}"},
            verify=NO_TLS,
            timeout=20,
            trust_env=False,
        )

    def close(self) -> None:
        """Hang up."""
        self._person.close()

    # ------------------------------------------------------------------------------------------------------- lives

    def begin(self, *turns: Sequence[Asked] | str, kill: str = "", **play: Any) -> Lived:  # noqa: ANN401  # of `Play`
        """The first life. `kill` is a failpoint of the SDK."""
        self._turns = turns
        return self._live(kill, going_on=False, **play)

    def resume(self, *, kill: str = "", **play: Any) -> Lived:  # noqa: ANN401  # those of `Play`
        """The next life, from what is saved."""
        return self._live(kill, going_on=True, **play)

    def forget(self, *turns: Sequence[Asked] | str, **play: Any) -> Lived:  # noqa: ANN401  # those of `Play`
        """The next life, of a framework that lost what it saved: the model is asked anew, and says this."""
        for path in self.folder.iterdir():
            if path.name != SHOWN:
                path.unlink()
        return self.begin(*turns, **play)

    def _live(self, kill: str, *, going_on: bool, **play: Any) -> Lived:  # noqa: ANN401  # those of `Play`
        acted = Play(THREAD, AGENT, self.folder, self.target.url, self._turns, going_on=going_on, **play)
        said = {**asdict(acted), "folder": str(self.folder)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPGRANT_")}
        environment = {
            **kept,
            "STEPGRANT_URL": self.broker.url,
            "STEPGRANT_WORKLOAD_KEY": str(self.broker.key_of(AGENT)),
            VARIABLE: json.dumps(said),
        }
        if kill:
            environment |= {"STEPGRANT_TEST": "1", "STEPGRANT_TEST_FAILPOINT": f"{kill}:kill"}
        self.lives.append(self.harness.live(environment))
        return self.lives[-1]

    # ---------------------------------------------------------------------------------------------------- a person

    def answer(self, verdict: str) -> None:
        """Approve or deny what waits for a person."""
        waiting = [one["id"] for one in self._get("/v1/approvals") if one["status"] == "pending"]
        self.check(len(waiting) == 1, f"one approval waits for a person, not {len(waiting)}")
        (self.broker.approve if verdict == "approve" else self.broker.deny)(waiting[0])

    def settle(self, verdict: str, result: object = None) -> None:
        """Reconcile the one step that is in doubt, by hand."""
        run = self.run
        doubtful = [one for one in self._get(f"/v1/runs/{run}/steps") if one["state"] == "in_doubt"]
        self.check(len(doubtful) == 1, f"one step is in doubt, not {len(doubtful)}")
        body = {"attempt": doubtful[0]["attempt"], "verdict": verdict, **({"result": result} if result else {})}
        self._post(f"/v1/runs/{run}/steps/{doubtful[0]['key']}/reconcile", body)

    def settle_not_done(self) -> None:
        """A person's `not_done` counts when the old credential is dead, which the broker is asked about until it is."""
        for _ in range(100):
            try:
                self.settle("not_done")
            except AdapterBroken as early:
                if "prior_credential_live" not in str(early):
                    raise
                time.sleep(0.1)
            else:
                return
        self.check(holds=False, what="the old credential dies")

    def which(self, step: str, verdict: str) -> None:
        """Say whether a call that looks like a completed one is it (`replay`) or another one (`run`)."""
        self._post(f"/v1/runs/{self.run}/steps/{step}/duplicate", {"verdict": verdict})

    @property
    def run(self) -> str:
        """The broker's name of the run; there is only one."""
        runs = self._get("/v1/runs")
        self.check(len(runs) == 1, f"one run for one thread, not {len(runs)}")
        return str(runs[0]["id"])

    @property
    def state(self) -> str:
        """The run's state."""
        return str(self._get("/v1/runs")[0]["state"])

    def entries(self, kind: str) -> list[Event]:
        """The run's entries of this type."""
        return [one for one in self.broker.entries(self.run) if one.type == kind]

    def _get(self, path: str) -> list[dict[str, Any]]:
        answer = self._person.get(path).raise_for_status().json()
        found = answer if isinstance(answer, list) else next(v for v in answer.values() if isinstance(v, list))
        return list(found)

    def _post(self, path: str, body: Mapping[str, object]) -> None:
        said = self._person.post(path, json=dict(body), headers={"Idempotency-Key": os.urandom(8).hex()})
        self.check(said.is_success, f"{path} is accepted, not {said.status_code} {said.text}")

    # ------------------------------------------------------------------------------------------------------ checks

    def check(self, holds: bool, what: str) -> None:  # noqa: FBT001  # a condition
        """Raises `AdapterBroken`."""
        if not holds:
            lives = [
                f"  life {n}: exit {one.code} {one.output}{one.errors[-3000:]}" for n, one in enumerate(self.lives)
            ]
            acts = [f"  {act}" for act in self.target.acts]
            raise AdapterBroken(
                "\n".join([f"{self.harness.name}: not so: {what}", *lives, "the target's book:", *acts])
            )

    def ended(self, lived: Lived) -> None:
        """It came to the end of its script, and so did the run."""
        self.check(lived.code == 0 and "ended" in lived.last, "the agent ends")
        self.check(self.state == "completed", f"the run is completed, not {self.state}")

    def killed(self, lived: Lived) -> None:
        """It was killed where the case wanted."""
        self.check(lived.code == -9, "the agent is killed")  # noqa: PLR2004  # SIGKILL
        self.broker.advance(LEASE_S)  # nobody waits for the lease of the dead

    def paused(self, lived: Lived) -> None:
        """It waits, in the framework's own way or with an error of ours, and the run can go on."""
        waits = "paused" in lived.last or "stopped" in lived.last
        self.check(lived.code > 0 and waits, "the agent waits")
        self.check(self.state == "parked", f"the run is parked, not {self.state}")

    def did(self, tool: str, times: int) -> None:
        """The target did it so often."""
        self.check(self.target.done(tool) == times, f"{tool} was done {times} times, not {self.target.done(tool)}")

    @property
    def shown(self) -> str:
        """All that the model was ever shown."""
        path = self.folder / SHOWN
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return "\n".join(json.loads(line) for line in lines)


@contextmanager
def world_for(harness: Harness, folder: Path) -> Iterator[World]:
    """A world in an empty folder, for one case."""
    saved = folder / "saved"
    saved.mkdir()
    broker = TestBroker(folder / "broker", lease_s=LEASE_S, **_QUICK)
    try:
        with target_for(broker) as target:
            tools: dict[str, dict[str, object]] = {
                name: {"effect": effect, "audience": target.url} for name, effect in _EFFECTS.items()
            }
            tools["order"]["ask"] = True
            tools["pay.reconcile"] = {"effect": "read", "audience": target.url}
            broker.allow(AGENT, tools)
            world = World(harness, broker, target, saved)
            try:
                yield world
            finally:
                world.close()
    finally:
        broker.close()
