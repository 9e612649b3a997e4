"""The real use cases over a real store, called as the model is called, and what can be seen of their runs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from fakes.hand import Hand
from fakes.world import AUDIENCE, call, person
from model.said import Said, answered, refused
from model.things import Call, Decision
from stepgrant_broker.domain.caller import AgentCaller, Request
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.errors import StepgrantFault
from stepgrant_broker.domain.outcomes import Result, Verdict
from stepgrant_broker.domain.reads import Page
from stepgrant_broker.domain.state import Approval, FailStatus, Grant, IdSource, Run, Step
from stepgrant_broker.issuers.static import StaticIssuer
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.complete import complete
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.decide_approval import decide_approval
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.fail import fail
from stepgrant_broker.usecases.heartbeat import heartbeat
from stepgrant_broker.usecases.open import OpenCall, open_run
from stepgrant_broker.usecases.park import park
from stepgrant_broker.usecases.prepare import prepare
from stepgrant_broker.usecases.quarantine import quarantine, release
from stepgrant_broker.usecases.reconcile import reconcile, reconcile_by_person
from stepgrant_broker.usecases.redeem import redeem
from stepgrant_broker.usecases.revoke import revoke_grant
from stepgrant_broker.usecases.suspend import suspend
from stepgrant_broker.usecases.sweep import sweep
from stepgrant_broker.usecases.turns import Turns

T = TypeVar("T")
Wait = Callable[[Coroutine[Any, Any, T]], T]
ALL: Final = Page(200)
NEWEST: Final = Page(4)
NOTHING: Final = Result(None)


class Died(Exception):
    """The broker ended at a failpoint: its caller hears nothing."""


@dataclass
class Seen:
    """What people and auditors can see of one run."""

    run: Run
    lease_until: int
    steps: dict[str, Step]
    grants: list[Grant]
    approvals: list[Approval]


@dataclass
class Real:
    """One broker. `reopen` gives another store on the same data; `names` are the run ids by run key."""

    hand: Hand
    reopen: Callable[[], Awaitable[Any]]
    names: dict[str, str] = field(default_factory=dict)
    heard: dict[str, Any] = field(default_factory=dict)
    """The newest answer as it came."""

    @property
    def ports(self) -> Ports:
        return self.hand.ports

    def die_at(self, point: str) -> None:
        """The broker ends when it next comes to this failpoint."""

        def die() -> None:
            self.hand.failpoints.armed.clear()
            raise Died(point)

        self.hand.failpoints.armed[point] = die

    def spare(self) -> bool:
        """Take the failpoint back; whether it was still armed."""
        armed = bool(self.hand.failpoints.armed)
        self.hand.failpoints.armed.clear()
        return armed

    async def restart(self) -> None:
        """A new process: what was in memory is gone."""
        await self.hand.store.close()
        store = await self.reopen()
        issuers = {**self.ports.issuers, "static": StaticIssuer(store, self.ports.wrap)}
        self.hand.store = store
        self.hand.ports = replace(self.ports, store=store, reads=store, issuers=issuers, keys=Keys(), turns=Turns())

    async def see(self, name: str) -> Seen:
        """Everything of this run."""
        run, reads = self.names[name], self.ports.reads
        loaded = await self._run(run)
        steps = (await reads.steps("acme", run, ALL)).rows
        grants = (await reads.grants("acme", ALL, run=run)).rows
        approvals = (await reads.approvals("acme", ALL, run=run)).rows
        by_id = sorted(approvals, key=lambda approval: approval.id)
        return Seen(*loaded, {s.key: s for s in steps}, sorted(grants, key=lambda grant: grant.jti), by_id)

    async def _run(self, run: str) -> tuple[Run, int]:
        for known in (await self.ports.reads.runs("acme", NEWEST)).rows:
            if known[0].id == run:
                return known
        raise LookupError(run)

    # --- runs ----------------------------------------------------------------------------------------------------

    async def open(self, name: str, key: str, request: str, *, value: object, on_resume: str, takeover: bool) -> Said:
        labels = {f"stepgrant.run.{tool}": on_resume for tool in ("resume", "takeover") if on_resume != "allow"}
        sent = OpenCall(name, "agent", None, json.dumps(value).encode(), labels, None, takeover)

        async def do() -> Said:
            answer = await open_run(self.ports, self.agent(key), sent, Request(request, json.dumps(value).encode()))
            self.names[name] = answer["run"]
            doubts = tuple(sorted(doubt["step"] for doubt in answer["in_doubt"]))
            return answered(epoch=answer["epoch"], resumed=answer["resumed"], doubts=doubts)

        return await self._say(do())

    async def heartbeat(self, name: str, key: str, epoch: int) -> Said:
        return await self._hears(heartbeat(self.ports, self.agent(key), self.names[name], epoch, self.hand.request()))

    async def park(self, name: str, key: str, epoch: int, request: str) -> Said:
        what = park(self.ports, self.agent(key), self.names[name], epoch, "requested", Request(request, b"park"))
        return await self._hears(what)

    async def end(self, name: str, key: str, epoch: int, how: Any, request: str) -> Said:  # noqa: ANN401 - one of three
        what = end(self.ports, self.agent(key), self.names[name], epoch, how, NOTHING, Request(request, b"end"))
        return await self._hears(what)

    async def quarantine(self, name: str) -> Said:
        return await self._hears(quarantine(self.ports, self.hand.operator, "run", self.names[name]))

    async def lift(self, name: str) -> Said:
        return await self._hears(release(self.ports, self.hand.operator, "run", self.names[name]))

    async def sweep(self) -> None:
        await sweep(self.ports)

    # --- steps ---------------------------------------------------------------------------------------------------

    async def step(
        self, name: str, key: str, epoch: int, asked: Call, decision: Decision, *, act: bool, request: str
    ) -> Said:
        what = call(
            asked.step, epoch=epoch, effect=Effect(asked.effect), tool=asked.tool, resource=f"on/{asked.step}",
            args=[asked.args], retry_failed=asked.retry, id_source=IdSource.EXPLICIT,
            context={"decide": document(decision)},
        )  # fmt: skip
        verb = begin if act else prepare
        body = json.dumps([asked.args, document(decision)]).encode()
        return await self._hears(verb(self.ports, self.agent(key), self.names[name], what, Request(request, body)))

    async def complete(self, name: str, key: str, epoch: int, step: str, attempt: int, request: str) -> Said:
        sent = Request(request, str(attempt).encode())
        what = complete(self.ports, self.agent(key), self.names[name], step, epoch, attempt, Result(b'"ok"'), sent)
        return await self._hears(what)

    async def fail(self, name: str, key: str, epoch: int, step: str, attempt: int, how: str, request: str) -> Said:
        sent = Request(request, f"{attempt} {how}".encode())
        more: dict[str, Any] = {"status": FailStatus(how), "error": "boom", "request": sent}
        return await self._hears(fail(self.ports, self.agent(key), self.names[name], step, epoch, attempt, **more))

    async def suspend(self, name: str, key: str, epoch: int, step: str, attempt: int, request: str) -> Said:
        sent = Request(request, str(attempt).encode())
        return await self._hears(suspend(self.ports, self.agent(key), self.names[name], step, epoch, attempt, sent))

    async def reconcile(
        self, name: str, key: str, epoch: int, step: str, verdict: str, *, attempt: int, via: str, request: str
    ) -> Said:
        said = Verdict(attempt, verdict, Result(b'"seen"') if verdict == "done" else NOTHING, "seen", via)
        sent = Request(request, f"{verdict} {attempt} {via}".encode())
        return await self._hears(reconcile(self.ports, self.agent(key), self.names[name], step, epoch, said, sent))

    async def reconcile_by_person(self, name: str, step: str, verdict: str, *, attempt: int, request: str) -> Said:
        said = Verdict(attempt, verdict, Result(b'"told"') if verdict == "done" else NOTHING)
        sent = Request(request, f"{verdict} {attempt}".encode())
        operator = self.hand.operator
        return await self._hears(reconcile_by_person(self.ports, operator, self.names[name], step, said, sent))

    # --- people and resource servers -----------------------------------------------------------------------------

    async def decide(self, name: str, approval: Approval, who: str, verdict: str, *, shown: bool, request: str) -> Said:
        found = await self.ports.reads.payloads("acme", self.names[name], [approval.binding_c])
        digest = found[approval.binding_c].value().decode().strip('"') if shown else "sha-256:another"
        sent = Request(request, f"{verdict} {digest}".encode())
        what = decide_approval(
            self.ports, person(who), approval.id, verdict=verdict, digest=digest, note=None, request=sent
        )
        return await self._hears(what)

    async def redeem(self, grant: Grant, rid: str, asked: Call) -> Said:
        digest = call(tool=asked.tool, resource=f"on/{asked.step}", args=[asked.args]).digest
        server = self.hand.agent("server", self.hand.server)
        what = redeem(self.ports, server, grant.jti, redemption_id=rid, args_digest=digest, proof_jti=f"proof {rid}")
        return await self._hears(what)

    async def revoke(self, grant: Grant) -> Said:
        return await self._hears(revoke_grant(self.ports, self.hand.operator, grant.jti, self.hand.request()))

    def agent(self, key: str) -> AgentCaller:
        """The workload's process that has this key."""
        return self.hand.agent(key)

    async def _hears(self, what: Coroutine[Any, Any, dict[str, Any]]) -> Said:
        async def do() -> Said:
            self.heard = await what
            return answered(**{name: value for name, value in self.heard.items() if _plain(value)})

        return await self._say(do())

    @staticmethod
    async def _say(what: Coroutine[Any, Any, Said]) -> Said:
        try:
            return await what
        except StepgrantFault as fault:
            return refused(fault.code)

    async def forget(self, name: str) -> None:
        """End the run, so that the sweeper and later examples need not look at it."""
        with suppress(StepgrantFault):
            await quarantine(self.ports, self.hand.operator, "run", self.names[name])


def _plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | bool)


def document(decision: Decision) -> dict[str, Any]:
    """What the test's policy answers."""
    grant: dict[str, Any] = {"audience": AUDIENCE, "ttl": decision.ttl_s}
    grant |= {"effect": decision.effect} if decision.effect else {}
    grant |= {"redeem": decision.redeem} if decision.redeem else {}
    said: dict[str, Any] = {"effect": decision.verdict, "reasons": ["drawn"], "grant": grant}
    return {**said, "approval": {"quorum": decision.quorum}} if decision.verdict == "require_approval" else said
