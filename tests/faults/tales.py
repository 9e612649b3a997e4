"""One run with one fault, from its first start to its end: brokers and agents are started again until it is done.

`tell(lab, case)` lives it and has the referee judge what is left: the ledger, the tables, the target's book, what the
agents heard, and what Vault and PostgreSQL say themselves. Nothing of it believes the broker.
"""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import httpx

from checker.check import check
from faults.forks import FOLDER, NO_TLS, Process, environment
from faults.lab import TTL_S, Lab, until_none
from faults.processes import ENDED, KILLED, Kill, Line, Start
from stepgrant.receipt import verify
from stepgrant_broker.domain.grants import LATE_MINT_MS, MINT_DEADLINE_MS

LIFE_S: Final = 120.0
LIVES_MOST: Final = 12
PEOPLE_S: Final = 60.0
GONE_S: Final = float(TTL_S)
"""How long a login may live after the end of its run at most, also where nobody knows its lease any more."""

CONFIRMED_S: Final = TTL_S + (MINT_DEADLINE_MS + LATE_MINT_MS) / 1000 + 10
"""How long until that is certain of one whose request nobody saw the end of."""

LOOK_S: Final = 0.5
"""Between two looks at all that there is; later ones come less often."""

_numbers = itertools.count(1)


@dataclass
class Brokers:
    """Starts a broker, and another one whenever one ends; each of `failpoints` is for one of them. `ended`: codes."""

    lab: Lab
    failpoints: Iterator[str]
    log: Path
    ended: list[int] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def keep(self) -> None:
        """Until `closing`."""
        nursery = self.lab.nursery
        while not self.closing.is_set():
            said = nursery.fork(self.lab.order(next(self.failpoints, ""), self.log))
            if "up" in said:
                said = nursery.expect("ended", patience_s=LIFE_S * LIVES_MOST)
            self.ended.append(int(said["ended"]))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep one up while the block runs; end the last one gracefully."""
        thread = threading.Thread(target=self.keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.closing.set()
            while thread.is_alive():
                with suppress(ProcessLookupError):
                    self.lab.nursery.signal(signal.SIGTERM)
                thread.join(15.0)

    def acts(self) -> list[Line]:
        """What the failpoints of all of them said that they did."""
        return _acts(self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else "")


def _acts(text: str) -> list[Line]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"event": "failpoint"')]


@dataclass
class Workman:
    """One agent with one run, over all its lives."""

    lab: Lab
    key: str
    failpoint: str = ""
    lives: list[Start] = field(default_factory=list)
    process: Process | None = None

    @property
    def run(self) -> str:
        """The broker's name of its run; empty when it never heard one."""
        return next((str(line["run"]) for life in self.lives for line in life.told if "run" in line), "")

    @property
    def acts(self) -> list[Line]:
        """What its failpoint said that it did."""
        return [act for life in self.lives for act in _acts(life.errors)]

    def finish(self) -> None:
        """Start it until it ends well, as a supervisor would, and answer what it asks."""
        while len(self.lives) < LIVES_MOST and self._live().code != ENDED:
            for line in self.lives[-1].told:
                if "asks" in line:
                    approve(self.lab, str(line["asks"]))

    def _live(self) -> Start:
        target = {"FAULTS_TARGET": self.lab.target.url} if self.lab.target is not None else {}
        names = {"STEPGRANT_URL": self.lab.url, "STEPGRANT_WORKLOAD_KEY": str(self.lab.agent_key)}
        kill = Kill("" if self.acts else self.failpoint).environment
        given = environment(**names, **target, **kill)
        life = Start.of(FOLDER / "workman.py", self.key, environment=given, patience_s=LIFE_S, born=self._born)
        self.lives.append(life)
        return life

    def _born(self, process: Process) -> None:
        self.process = process

    def story(self) -> str:
        """Its lives, for a failure."""
        return "\n".join(
            f"{self.key}, life {number}: exit {life.code}; told {json.dumps(life.told)}\n{life.errors[-1500:]}"
            for number, life in enumerate(self.lives, 1)
        )


def people(lab: Lab, method: str, path: str, body: object = None) -> httpx.Response:
    """A person's call, again until the broker answers. Raises `TimeoutError`."""
    headers = {"Authorization": f"Bearer {lab.operator}"}
    if method != "GET":
        headers["Idempotency-Key"] = f"person-{next(_numbers)}-{time.time_ns()}"
    end = time.monotonic() + PEOPLE_S
    while time.monotonic() < end:
        with suppress(httpx.TransportError), httpx.Client(verify=NO_TLS, trust_env=False, timeout=20) as http:
            answer = http.request(method, lab.url + path, json=body, headers=headers)
            if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                return answer
        time.sleep(0.1)
    raise TimeoutError(f"{method} {path}: no answer")


def approve(lab: Lab, approval: str) -> None:
    """Say yes, however often the answer is lost. Raises `ValueError` when it cannot be said."""
    shown = people(lab, "GET", f"/v1/approvals/{approval}").json()
    said = {"verdict": "approve", "digest": shown["digest"]}
    answer = people(lab, "POST", f"/v1/approvals/{approval}/decide", said)
    if people(lab, "GET", f"/v1/approvals/{approval}").json()["status"] == "pending":
        raise ValueError(f"the approval could not be given: {answer.text}")


class Fault(Protocol):
    """What is broken in one run, and where: a `Case`, or several faults in a row."""

    @property
    def name(self) -> str:
        """What replays it."""

    @property
    def agents(self) -> int:
        """How many agents work at once."""

    @property
    def by_agent(self) -> str:
        """The SDK's failpoint; nothing for none."""

    def by_brokers(self) -> Iterable[str]:
        """The failpoints of the first broker, of the second, and so on."""


@dataclass
class Tale:
    """What one case came to. `found`: everything that should not be; empty when all held.

    `acts`: what all failpoints did. `lived_on_s`: how long after the end of the runs something that they were given was
    still alive.
    """

    case: Fault
    workmen: list[Workman]
    brokers: Brokers
    found: list[str] = field(default_factory=list)
    acts: list[Line] = field(default_factory=list)
    seconds: float = 0.0
    lived_on_s: float = 0.0

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        codes = [*self.brokers.ended, *(life.code for one in self.workmen for life in one.lives)]
        return codes.count(KILLED)

    def did(self, point: str, action: str) -> bool:
        """Whether this was done at this point at all."""
        return any((act["point"], act["action"]) == (point, action) for act in self.acts)

    def report(self) -> str:
        """All there is to know, for a failure."""
        told = "\n".join(one.story() for one in self.workmen)
        log = (
            self.brokers.log.read_text(encoding="utf-8", errors="replace")[-3000:] if self.brokers.log.exists() else ""
        )
        found = "\n".join(self.found)
        return f"{self.case.name}: broken:\n{found}\n\n{told}\nbrokers ended: {self.brokers.ended}\nlog:\n{log}"


Meanwhile: TypeAlias = Callable[[Tale, threading.Event], None]
"""Harms the tale's processes until the event is set."""


def tell(lab: Lab, case: Fault, meanwhile: Meanwhile | None = None) -> Tale:
    """Live one case and judge it. `meanwhile` goes on beside it, from its first start until the agents have ended."""
    begun, number = time.monotonic(), next(_numbers)
    workmen = [Workman(lab, f"run-{number}-{one}", case.by_agent) for one in range(case.agents)]
    tale = Tale(case, workmen, Brokers(lab, iter(case.by_brokers()), lab.folder / f"log-{number}"))
    with tale.brokers.kept():
        with _beside(tale, meanwhile), ThreadPoolExecutor(case.agents) as pool:
            list(pool.map(Workman.finish, workmen))
        tale.found += _ended(workmen)
        tale.found += itertools.chain(*(receipt_of(lab, one.run) for one in workmen if one.run))
        ended = time.monotonic()
        tale.found += [f"I9: a login lives after the end: {one}" for one in until_none(lab.alive, GONE_S)]
        tale.lived_on_s = time.monotonic() - ended
    tale.found += judged(lab, workmen)
    tale.acts += [*tale.brokers.acts(), *(act for one in workmen for act in one.acts)]
    if any(act["action"] == "kill" for act in tale.acts) and not tale.kills:
        tale.found.append("it was to be killed, and nothing was")
    tale.seconds = time.monotonic() - begun
    return tale


@contextmanager
def _beside(tale: Tale, meanwhile: Meanwhile | None) -> Iterator[None]:
    if meanwhile is None:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=meanwhile, args=(tale, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def settle(lab: Lab) -> list[str]:
    """Once all cases of a lab are over: until everything that any of them was given is confirmed dead.

    A login whose lease nobody knows is waited out, so this is asked once for all of them. What is not dead after that.
    """
    brokers = Brokers(lab, iter(()), lab.folder / "log-settling")
    with brokers.kept():
        return list(until_none(lambda: _unsettled(lab), CONFIRMED_S, LOOK_S))


def _unsettled(lab: Lab) -> list[str]:
    evidence = lab.evidence()
    runs = [run for (_, run), _ in evidence.chains() if run]
    left = [f"I9: it could still make a login: {one}" for one in lab.tokens(runs)]
    return left + [str(broken) for broken in check(replace(evidence, settled_at=evidence.read_at))]


def _ended(workmen: Iterable[Workman]) -> list[str]:
    return [f"{one.key} did not end: {[life.code for life in one.lives]}" for one in workmen if one.lives[-1].code]


def receipt_of(lab: Lab, run: str) -> list[str]:
    """What is wrong with the receipt of a run, verified offline."""
    answer = people(lab, "GET", f"/v1/runs/{run}/receipt")
    keys: dict[str, Any] = people(lab, "GET", "/v1/ledger/keys").json()
    if answer.status_code != httpx.codes.OK:
        return [f"no receipt: {answer.text}"]
    return [] if verify(answer.content, keys).complete else [f"the receipt of {run} is not complete"]


def judged(lab: Lab, workmen: Sequence[Workman]) -> list[str]:
    """What the referee finds in each run."""
    found = []
    for one in workmen:
        if not one.run:
            found.append(f"{one.key} never heard of its run")
            continue
        evidence = lab.evidence(one.run).beside(heard=[life.told for life in one.lives])
        found += [str(broken) for broken in check(evidence)]
    return found
