"""Brokers in this process on one PostgreSQL, and a run whose every call goes through the next of their doors.

Rules:
* Each is a whole broker as `serve` runs it: a store, keys, policy engine and sweeper of its own. Only the sockets are
  left out; proofs are for one address, as behind any load balancer.
* The life has each call that an agent, a resource server and a person make in the life of a run. `shape` is what of its
  entries must be the same, whichever brokers wrote them: all but names that were drawn, times, and commitments.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from checker.evidence import Evidence
from checker.reading import read_postgres
from faults.letters import OK, Letter, Writer
from faults.nursery import QUICK
from faults.processes import settings_for
from stepgrant.canonical import action_digest
from stepgrant.receipt import read_event
from stepgrant_broker.config import explicit_settings
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.wiring import Broker, build, starter_with
from stepgrant_broker.wiring.bootstrap import enrol_workload, new_operator

URL: Final = "http://127.0.0.1:8423"
SHOP: Final = "https://shop.example"
ORDER: Final = {"order": "7"}
AGENT: Final = "worker"
DRAWN: Final = re.compile(r"(?=.*[A-Z0-9])[A-Za-z0-9:_-]{22,}")
UNLIKE: Final = ("ts", "prev", "salt")
CALM: Final[Mapping[str, Any]] = {**QUICK, "lease_ms": 600_000, "sweep_ms": 600_000}
"""Nothing happens by itself, however slow the machine is; and what was redeemed is dead after a second."""
LATE: Final = 1_000_000_000


class Refused(Exception):
    """A call was refused. `code` as of the problem; `retry_s`: when it may be made again."""

    def __init__(self, letter: Letter, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{letter.method} {letter.path}: {problem}")
        self.code = str(problem.get("code"))
        self.retry_s = float(problem.get("retry_after_ms", 0)) / 1000


@dataclass
class Doors:
    """Running brokers. Each call goes to the next one; `served` counts what each was asked."""

    brokers: Sequence[Broker]
    clients: Sequence[httpx.AsyncClient]
    database_url: str = field(repr=False)
    keys: Mapping[str, Path]
    operator: str = field(repr=False)
    served: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.served = [0] * len(self.clients)
        self._turns = itertools.cycle(range(len(self.clients)))

    def next(self) -> httpx.AsyncClient:
        """The door whose turn it is."""
        turn = next(self._turns)
        self.served[turn] += 1
        return self.clients[turn]

    async def send(self, letter: Letter) -> Any:  # noqa: ANN401 - JSON
        """What the next door answers. Raises `Refused`."""
        answer = await self.next().request(
            letter.method, letter.path, content=letter.body, headers=dict(letter.headers)
        )
        if answer.status_code != OK:
            raise Refused(letter, answer.json())
        return answer.json()

    def evidence(self, run: str | None = None) -> Evidence:
        """What is in the database."""
        return read_postgres(self.database_url, run)


class Process(Writer):
    """One process of a workload that comes through the doors, for its token too."""

    def __init__(self, doors: Doors, who: str) -> None:
        super().__init__(URL, doors.keys[who])
        self._doors = doors

    async def enter(self) -> Process:
        """Get an access token. The nonce is of one door and the assertion goes to the next."""
        for _ in range(2):
            now = time.time()
            form, headers = self._request.form(now), self._request.headers(self._nonce, now)
            answer = await self._doors.next().post("/oauth/token", data=form, headers=headers)
            self._nonce = answer.headers.get("dpop-nonce", self._nonce)
            if answer.status_code == OK:
                self._token = answer.json()["access_token"]
                return self
        raise RuntimeError("no token, though the nonce was followed")

    async def ask(self, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
        """One call; when it has to wait for a credential to die, it is made again as soon as that is dead."""
        while True:
            try:
                return await self._doors.send(self.write(path, body))
            except Refused as refused:
                if refused.code != "prior_credential_live":
                    raise
                await asyncio.sleep(refused.retry_s)


class Life:
    """One run. `opening` to `pausing`, then `resuming` to `ending`; grants of the first are used in the second."""

    def __init__(self, doors: Doors, key: str) -> None:
        self.doors, self.key = doors, key
        self.run, self.approval = "", ""
        self.agent, self.server = Process(doors, "worker"), Process(doors, "shop")
        self._numbers = itertools.count(1)

    async def step(self, step: str, verb: str, **body: Any) -> Any:  # noqa: ANN401 - members, JSON
        """A call about a step."""
        return await self.agent.ask(f"/v1/runs/{self.run}/steps/{step}/{verb}", body)

    async def call(self, step: str, verb: str, tool: str, epoch: int, effect: str = "once") -> Any:  # noqa: ANN401
        """Prepare, start or begin it."""
        return await self.step(step, verb, epoch=epoch, action={"tool": tool, "args": ORDER}, effect=effect)

    async def holder(self, verb: str, **body: Any) -> Any:  # noqa: ANN401 - as above
        """A call about the run."""
        return await self.agent.ask(f"/v1/runs/{self.run}/{verb}", body)

    async def person(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """A call of a person."""
        headers = {"authorization": f"Bearer {self.doors.operator}", "content-type": "application/json"}
        if method == "POST":
            headers["idempotency-key"] = f"{self.key}-{next(self._numbers)}"
        content = b"" if body is None else json.dumps(body).encode()
        return await self.doors.send(Letter(method, path, headers, content))

    async def open(self, epoch: int) -> None:
        """By a fresh process: it has another proof key than the one before."""
        self.agent = await Process(self.doors, "worker").enter()
        opened = await self.agent.ask("/v1/runs", {"agent": AGENT, "run_key": self.key})
        assert opened["epoch"] == epoch
        self.run = str(opened["run"])

    async def first_epoch(self) -> str:
        """Until it waits for a person: a step is done, one failed, one is set aside, one in doubt; a grant is out."""
        await self.server.enter()
        await self.open(1)
        await self.step("plan", "record", epoch=1, name="plan", result=["charge"])
        await self.call("charge", "prepare", "card.charge", 1)
        granted = await self.call("charge", "start", "card.charge", 1)
        await self.holder("heartbeat", epoch=1)
        await self.redeem(granted["grant"]["jti"], "card.charge")
        await self.step("charge", "complete", epoch=1, attempt=1, result={"charged": 5})
        await self.call("note", "begin", "note.put", 1, "idempotent")
        await self.step("note", "fail", epoch=1, attempt=1, outcome="not_executed", error="busy")
        await self.call("look", "begin", "stock.read", 1, "read")
        await self.step("look", "suspend", epoch=1, attempt=1)
        mail = await self.call("mail", "begin", "mail.send", 1)
        await self.redeem(mail["grant"]["jti"], "mail.send")
        await self.step("mail", "fail", epoch=1, attempt=1, outcome="unknown")
        self.approval = str((await self.call("publish", "begin", "file.publish", 1))["approval_id"])
        return str((await self.call("late", "begin", "card.charge", 1))["grant"]["jti"])

    async def redeem(self, jti: str, tool: str) -> None:
        """The shop redeems it."""
        body = {"redemption_id": jti, "args_digest": action_digest(tool, None, ORDER), "proof_jti": "p"}
        await self.server.ask(f"/v1/grants/{jti}/redeem", body)

    async def second_epoch(self, jti: str) -> None:
        """What was begun is done, it parks, people answer, another process takes it up and ends it."""
        await self.redeem(jti, "card.charge")
        await self.step("late", "complete", epoch=1, attempt=1, result={"charged": 5})
        await self.holder("park", epoch=1, reason="awaiting_approval", detail="publish")
        shown = await self.person("GET", f"/v1/approvals/{self.approval}")
        answer = {"verdict": "approve", "digest": shown["digest"], "note": "good"}
        await self.person("POST", f"/v1/approvals/{self.approval}/decide", answer)
        verdict = {"attempt": 1, "verdict": "done", "result": {"sent": True}, "evidence": "it is in the outbox"}
        await self.person("POST", f"/v1/runs/{self.run}/steps/mail/reconcile", verdict)
        await self.open(2)
        await self.call("publish", "begin", "file.publish", 2)
        await self.step("publish", "complete", epoch=2, attempt=1, result={"published": True})
        assert (await self.call("charge", "begin", "card.charge", 2))["result"] == {"charged": 5}
        await self.call("look", "begin", "stock.read", 2, "read")
        await self.step("look", "complete", epoch=2, attempt=2, result=3)
        await self.holder("complete", epoch=2, result="done")

    def shape(self) -> list[Any]:
        """Its entries, as the rules above say."""
        records = [one for one in self.doors.evidence(self.run).entries if one.chain == self.run]
        drawn = {self.key: "its key"}
        found = []
        for record in sorted(records, key=lambda one: one.seq):
            event = read_event(record.data)
            found.append(_shape({name: event.fields[name] for name in event.fields if name not in UNLIKE}, drawn))
        return found


def _shape(value: Any, drawn: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping):
        return {
            name: one is None if name.endswith(("_c", "_ms")) else _shape(one, drawn) for name, one in value.items()
        }
    if isinstance(value, list):
        return [_shape(one, drawn) for one in value]
    if isinstance(value, str) and (value in drawn or DRAWN.fullmatch(value)):
        return drawn.setdefault(value, f"drawn {len(drawn)}")
    return "a time" if isinstance(value, int) and value > LATE else value


@asynccontextmanager
async def doors(folder: Path, database_url: str, settings: Sequence[Mapping[str, Any]]) -> AsyncIterator[Doors]:
    """A broker for each of these settings, on a migrated database that nobody has used yet, until the block ends."""
    for made in (LocalSigner, LocalWrap):
        made.open(folder / "keys", create=True)
    shared = {"keys_dir": folder / "keys", "database_url": database_url, "public_url": URL, "log_level": "error"}
    policy = starter_with(settings_for(SHOP, {"file.publish": {"effect": "once", "ask": True, "audience": SHOP}}))
    async with AsyncExitStack() as stack:
        brokers = [
            await stack.enter_async_context(
                build(
                    explicit_settings(**{"data_dir": folder / f"broker-{number}", **shared, **CALM, **one}),
                    policy=policy,
                )
            )
            for number, one in enumerate(settings)
        ]
        keys = {name: folder / f"{name}.json" for name in ("worker", "shop")}
        await enrol_workload(brokers[0], keys["worker"], "worker", agents=[AGENT], audiences=[])
        await enrol_workload(brokers[0], keys["shop"], "shop", agents=[], audiences=[SHOP])
        _, operator = await new_operator(brokers[0], "Olga", roles=("operator", "approver"), groups=())
        ways = [httpx.ASGITransport(broker.make_app(), raise_app_exceptions=False) for broker in brokers]
        clients = [await stack.enter_async_context(httpx.AsyncClient(transport=way, base_url=URL)) for way in ways]
        yield Doors(brokers, clients, database_url, keys, operator)
