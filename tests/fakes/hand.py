"""The use cases in the hand of a test: real SQLite, real policy engine, real keys; only the clock is the test's.

The policy answers what a call's context (or a run's labels) asks for, so that a test says the decision in the call.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakes.clock import ArmedFailpoints, CountingIds, StandingClock
from fakes.world import AUDIENCE, call, person
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller, Request
from stepgrant_broker.domain.chain_keys import Keys
from stepgrant_broker.domain.decisions import Effect
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.domain.ports import Issuer
from stepgrant_broker.domain.settings import Limits
from stepgrant_broker.domain.writes import ProofUse, Workload
from stepgrant_broker.issuers.jwt import JwtIssuer
from stepgrant_broker.issuers.static import StaticIssuer
from stepgrant_broker.policy import contract
from stepgrant_broker.policy.bundle import from_files
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.signing.local import LocalSigner
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.store.sealing import Seal
from stepgrant_broker.store.sqlite import SqliteStore
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.begin import begin
from stepgrant_broker.usecases.complete import complete
from stepgrant_broker.usecases.context import Ports
from stepgrant_broker.usecases.enroll import Enrolment, enroll
from stepgrant_broker.usecases.open import OpenCall, open_run
from stepgrant_broker.usecases.operators import authenticate_operator, create_operator
from stepgrant_broker.usecases.redeem import redeem
from stepgrant_broker.wiring.fresh import new_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REGO = """package stepgrant

default decision := {"effect": "deny", "reasons": ["no_rule_matched"]}

decision := input.claimed.context.decide

decision := allowed if {
	not input.claimed.context.decide
	startswith(input.action.tool, "stepgrant.run.")
	not input.claimed.labels[input.action.tool]
}

decision := {"effect": "require_approval", "reasons": ["asked"]} if input.claimed.labels[input.action.tool] == "ask"

decision := {"effect": "require_approval", "reasons": ["asked"]} if {
	input.claimed.labels[input.action.tool] == "seen"
	input.approval == null
}

decision := {"effect": "allow", "reasons": ["seen"]} if {
	input.claimed.labels[input.action.tool] == "seen"
	input.approval != null
}

allowed := {"effect": "allow", "reasons": ["test"]}
"""


def allow(**grant: Any) -> dict[str, Any]:  # noqa: ANN401 - the contract's JSON
    """A decision document that allows a `once` effect at the test's audience."""
    return {"effect": "allow", "reasons": ["ok"], "grant": {"audience": AUDIENCE, "effect": "once", **grant}}


def ask(**approval: Any) -> dict[str, Any]:  # noqa: ANN401 - the contract's JSON
    """A decision document that asks people."""
    return {**allow(), "effect": "require_approval", "approval": approval}


def deny(*reasons: str) -> dict[str, Any]:
    """A decision document that refuses."""
    return {"effect": "deny", "reasons": list(reasons or ("no",))}


def deciding(document: object) -> dict[str, Any]:
    """Arguments of `call` that make the test's policy answer this document."""
    return {"context": {"decide": document}}


@dataclass
class Hand:
    """One broker's use cases, a workload, a resource server and an operator of tenant `acme`."""

    ports: Ports
    clock: StandingClock
    failpoints: ArmedFailpoints
    store: SqliteStore
    engine: EmbeddedEngine
    workload: Workload
    server: Workload
    operator: PersonCaller
    count: itertools.count[int] = field(default_factory=itertools.count)

    def request(self, body: object = None, key: str | None = None) -> Request:
        """A request with a fresh Idempotency-Key."""
        return Request(key or f"key-{next(self.count)}", json.dumps(body).encode())

    def agent(self, key: str = "k1", workload: Workload | None = None) -> AgentCaller:
        """The workload's process with this key, attested just now, with a fresh proof."""
        workload = workload or self.workload
        proof = f"proof-{next(self.count)}"
        now = self.clock.now()
        return AgentCaller(
            "acme", f"workload:{workload.name}", "enrolled_key", "acme", {}, workload, key, now, now + 3_600_000,
            "sha-256:e", ProofUse(proof, now + 900_000), proof,
        )  # fmt: skip

    def approver(self, name: str = "ann", *groups: str) -> PersonCaller:
        """A person who may approve."""
        return person(name, groups=groups)

    async def open(
        self,
        key: str = "job",
        who: str = "k1",
        workload: Workload | None = None,
        **more: Any,  # noqa: ANN401 - members
    ) -> dict[str, Any]:
        """Open or resume."""
        values: dict[str, Any] = {
            "run_key": key, "agent": "agent", "version": None, "input_bytes": None, "labels": {}, "principal": None,
            "takeover": False, **more,
        }  # fmt: skip
        return await open_run(
            self.ports, self.agent(who, workload), OpenCall(**values), self.request(more.get("labels"))
        )

    async def begin(
        self, run: str, step: str = "s1", decision: Mapping[str, Any] | None = None, *, who: str = "k1",
        request: Request | None = None, **more: Any,  # noqa: ANN401 - members of the call
    ) -> dict[str, Any]:  # fmt: skip
        """Begin a step under this decision document."""
        effect = more.pop("effect", Effect.ONCE)
        context = {"decide": dict(decision or allow(effect=effect.value))}
        what = call(step, effect=effect, context=context, **more)
        return await begin(self.ports, self.agent(who), run, what, request or self.request())

    async def complete(
        self, run: str, step: str = "s1", *, epoch: int = 1, attempt: int = 1, who: str = "k1"
    ) -> dict[str, Any]:
        """Complete a step with the result `"ok"`."""
        return await complete(self.ports, self.agent(who), run, step, epoch, attempt, Result(b'"ok"'), self.request())

    async def redeem(self, jti: str, *, rid: str = "r1", digest: str | None = None) -> dict[str, Any]:
        """Redeem at the resource server."""
        who = self.agent("server", self.server)
        return await redeem(
            self.ports, who, jti, redemption_id=rid, args_digest=digest or call().digest, proof_jti="pj"
        )

    async def entries(self, run: str | None) -> list[str]:
        """The types of a chain's entries."""
        found = await self.ports.reads.entries("acme", run, limit=500)
        return [str(json.loads(entry.data)["type"]) for entry in found]


@asynccontextmanager
async def hand(folder: Path, limits: Limits | None = None) -> AsyncIterator[Hand]:
    """A hand over fresh adapters in `folder`."""
    clock, ids, failpoints = StandingClock(), CountingIds(), ArmedFailpoints()
    database = folder / "store" / "stepgrant.db"
    new_database(database)
    keys = folder / "keys"
    signer, wrap, kept = LocalSigner.open(keys, create=True), LocalWrap.open(keys, create=True), Keys()
    store = SqliteStore(database, clock=clock, failpoints=failpoints, seal=Seal(wrap, kept))
    engine = EmbeddedEngine(decision_ids=lambda: "dec_" + ids.ulid(clock.now()))
    limits = limits or Limits()
    issuers: dict[str, Issuer] = {
        "jwt": JwtIssuer(signer, limits.issuer_url),
        "static": StaticIssuer(store, wrap),
    }
    ports = Ports(store, store, engine, contract.parse, issuers, signer, wrap, clock, ids, failpoints, limits, kept)
    try:
        bundle = from_files({"stepgrant/main.rego": REGO})
        revision = await next_revision(ports, bundle.digest)
        await engine.load(revision, bundle)
        await activate_policy(ports, "acme", None, revision=revision, text=bundle.files)
        jwk = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
        agent = await enroll(ports, "acme", None, Enrolment("agent", ("agent",), (), jwk, "j1"))
        server = await enroll(ports, "acme", None, Enrolment("tool", (), (AUDIENCE,), jwk, "j2"))
        token = await create_operator(ports, "acme", None, name="Olga", roles=["operator"])
        workload, tool = await store.workload(agent["id"]), await store.workload(server["id"])
        assert workload is not None
        assert tool is not None
        operator = await authenticate_operator(ports, token["token"])
        yield Hand(ports, clock, failpoints, store, engine, workload, tool, operator)
    finally:
        await engine.close()
        await store.close()


def with_limits(ports: Ports, **limits: Any) -> Ports:  # noqa: ANN401 - members of `Limits`
    """The same ports under other limits."""
    return replace(ports, limits=replace(ports.limits, **limits))
