"""Whole lives of runs and of what people keep, as requests that have to work: what takes a fuzzer into the depth.

A story is a generator: it yields what is asked, and is sent the answer of it. Told honestly, each request is answered
with 200, whatever an unproven twin of it tried just before; `http_teller` also tells them with changed bodies, and goes
on as far as it is let. Together they ask every endpoint that asks who calls; the walk says so if they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fakes.hand import allow, ask, deny
from stepgrant import canonical
from stepgrant._dpop import DpopKey

ARGS: Final = {"amount": 5}
ACTION: Final = {"tool": "refund.create", "resource": "order/1", "args": ARGS}
DIGEST: Final = canonical.action_digest("refund.create", "order/1", ARGS)
RUN: Final = "/v1/runs/{run}"
STEP: Final = RUN + "/steps/{step}"
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Ask:
    """A request that has to work. `who`: agent, server, person, or successor (the agent's next process).

    `again`: the code of the refusal when it comes once more with the same proof. The proof is found at the commit, so
    it is another code where the state does not admit the request twice.
    """

    who: str
    method: str
    path: str
    where: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    again: str = "invalid_dpop_proof"


Story = Generator[Ask, Answer, None]


def _agent(path: str, where: Mapping[str, str], **body: Any) -> Ask:  # noqa: ANN401 - members
    return Ask("agent", "POST", path, where, body)


def _person(method: str, path: str, body: Mapping[str, Any] | None = None, **where: str) -> Ask:
    return Ask("person", method, path, where, body)


def _call(path: str, run: str, step: str, epoch: int, decide: Mapping[str, Any], effect: str = "once") -> Ask:
    where = {"run": run, "step": step}
    return _agent(path, where, epoch=epoch, action=ACTION, effect=effect, context={"decide": decide})


def _redeem(began: Answer, step: str) -> Ask:
    body = {"redemption_id": f"r-{step}", "args_digest": DIGEST, "proof_jti": f"p-{step}"}
    return Ask("server", "POST", "/v1/grants/{jti}/redeem", {"jti": str(began["grant"]["jti"])}, body)


def _open(key: str) -> Ask:
    ask = _agent("/v1/runs", {}, agent="agent", run_key=key, labels={"team": "ops"}, input={"n": 1})
    return replace(ask, again="lease_held")


def whole_life(name: str) -> Story:
    """Opened, prepared, started, redeemed, completed, replayed, recorded, parked, resumed, completed, read."""
    run = str((yield _open(name))["run"])
    here = {"run": run}
    yield _agent(RUN + "/heartbeat", here, epoch=1)
    yield _call(STEP + "/prepare", run, "a", 1, allow())
    began = yield _call(STEP + "/start", run, "a", 1, allow())
    yield _redeem(began, "a")
    yield _agent(STEP + "/complete", {"run": run, "step": "a"}, epoch=1, attempt=1, result={"refund": 1})
    yield _call(STEP + "/begin", run, "a", 1, allow())
    yield _call(STEP + "/begin", run, "b", 1, allow(effect="idempotent"), "idempotent")
    yield _agent(STEP + "/complete", {"run": run, "step": "b"}, epoch=1, attempt=1, withheld=True)
    yield _agent(STEP + "/record", {"run": run, "step": "plan"}, epoch=1, name="plan", args=[1], result=None)
    yield replace(_agent(RUN + "/park", here, epoch=1, reason="requested", detail="later"), again="stale_epoch")
    epoch = int((yield replace(_open(name), who="successor"))["epoch"])
    yield Ask("successor", "POST", RUN + "/complete", here, {"epoch": epoch, "result": "done"}, again="run_ended")
    for path in (RUN, RUN + "/steps", RUN + "/entries", RUN + "/receipt"):
        yield _person("GET", path, run=run)
    yield _person("GET", STEP, run=run, step="a")


def asked_and_stopped(name: str) -> Story:
    """A person is asked and agrees; another step is denied; the call was not made; a person cancels the run."""
    run = str((yield _open(name))["run"])
    asked = yield _call(STEP + "/begin", run, "a", 1, ask())
    approval = str(asked["approval_id"])
    shown = yield _person("GET", "/v1/approvals/{approval}", approval=approval)
    verdict = {"verdict": "approve", "digest": shown["digest"], "note": "fine"}
    yield _person("POST", "/v1/approvals/{approval}/decide", verdict, approval=approval)
    yield _call(STEP + "/begin", run, "a", 1, ask())
    where = {"run": run, "step": "a"}
    yield _agent(STEP + "/fail", where, epoch=1, attempt=1, outcome="not_executed", error="busy")
    yield _call(STEP + "/prepare", run, "b", 1, deny("too_much"))
    yield _person("GET", "/v1/approvals")
    yield _person("POST", RUN + "/cancel", {}, run=run)


def doubtful(name: str) -> Story:
    """Suspended and gone on with; in doubt, and a person knows; revoked by hand; declared dead; off and on; failed."""
    run = str((yield _open(name))["run"])
    a, b = {"run": run, "step": "a"}, {"run": run, "step": "b"}
    yield _call(STEP + "/begin", run, "a", 1, allow(effect="idempotent"), "idempotent")
    yield replace(_agent(STEP + "/suspend", a, epoch=1, attempt=1), again="invalid_request")
    yield _call(STEP + "/begin", run, "a", 1, allow(effect="idempotent"), "idempotent")
    began = yield _call(STEP + "/begin", run, "b", 1, allow())
    yield _redeem(began, "b")
    yield _agent(STEP + "/fail", b, epoch=1, attempt=1, outcome="unknown", error="cut")
    yield _person("POST", STEP + "/reconcile", {"attempt": 1, "verdict": "done", "result": 1}, **b)
    began = yield _call(STEP + "/begin", run, "c", 1, allow(effect="read"), "read")
    yield _person("POST", "/v1/grants/{jti}/revoke", {}, jti=str(began["grant"]["jti"]))
    yield _person("GET", "/v1/grants")
    began = yield _call(STEP + "/begin", run, "d", 1, allow(issuer="outside"))
    yield _agent(STEP + "/complete", {"run": run, "step": "d"}, epoch=1, attempt=1, result=4)
    yield _person("POST", "/v1/grants/{jti}/declare-dead", {}, jti=str(began["grant"]["jti"]))
    yield _person("POST", "/v1/quarantine", {"run": run})
    yield _person("GET", "/v1/quarantine")
    yield _person("POST", "/v1/quarantine/release", {"run": run})
    epoch = int((yield replace(_open(name), who="successor"))["epoch"])
    yield Ask("successor", "POST", RUN + "/fail", {"run": run}, {"epoch": epoch}, again="run_ended")


def kept(name: str) -> Story:
    """What people keep: workloads, operators, secrets, queued runs."""
    queued = yield _agent("/v1/runs/queue", {}, agent="agent", run_key=name, input=[])
    yield _person("GET", RUN, run=str(queued["run"]))
    jwk = DpopKey().public_jwk
    workload = yield _person("POST", "/v1/workloads", {"name": name, "jwk": jwk, "agents": ["x"], "audiences": []})
    yield _person("GET", "/v1/workloads")
    yield _person("DELETE", "/v1/workloads/{workload}", workload=str(workload["id"]))
    operator = yield _person("POST", "/v1/operators", {"name": name, "roles": ["approver"], "groups": ["ops"]})
    yield _person("GET", "/v1/operators")
    yield _person("DELETE", "/v1/operators/{operator}", operator=str(operator["id"]))
    yield _person("PUT", "/v1/secrets/{name}", {"value": "hunter2", "hosts": ["crm.example"]}, name=name)
    yield _person("GET", "/v1/secrets")
    yield _person("DELETE", "/v1/secrets/{name}", name=name)
    yield _person("GET", "/v1/whoami")
    yield _person("GET", "/v1/runs")


def looked_into(name: str) -> Story:
    """A call is denied; the decision is looked at, alone and as evidence; the run ends and is erased."""
    run = str((yield _open(name))["run"])
    denied = yield _call(STEP + "/begin", run, "a", 1, deny("too_much"))
    yield _person("GET", RUN + "/decisions/{decision}", run=run, decision=str(denied["decision_id"]))
    yield _person("GET", RUN + "/decisions", run=run)
    yield _person("GET", "/v1/ledger/decisions")
    yield _person("GET", "/v1/ledger/entries")
    kept = yield _person("GET", "/v1/policies")
    yield _person("GET", "/v1/policies/{revision}", revision=str(kept["policies"][0]["revision"]))
    yield replace(_agent(RUN + "/complete", {"run": run}, epoch=1), again="run_ended")
    yield _person("POST", RUN + "/erase", {}, run=run)
    yield _person("GET", RUN + "/decisions", run=run)


def repeated(name: str) -> Story:
    """The holder comes back without the ids of its calls, and a person says which call is meant."""
    run = str((yield _open(name))["run"])
    first = _call(STEP + "/begin", run, "call_1", 1, allow())
    lost = {"id_source": "call_id"}
    yield replace(first, body={**(first.body or {}), **lost})
    yield _agent(STEP + "/complete", {"run": run, "step": "call_1"}, epoch=1, attempt=1, result=1)
    yield replace(_agent(RUN + "/park", {"run": run}, epoch=1), again="stale_epoch")
    epoch = int((yield replace(_open(name), who="successor"))["epoch"])
    where = {"run": run, "step": "call_2"}
    yield replace(first, who="successor", where=where, body={**(first.body or {}), **lost, "epoch": epoch})
    yield _person("POST", STEP + "/duplicate", {"verdict": "replay", "note": "one order"}, **where)
    yield _person("POST", RUN + "/cancel", {}, run=run)


STORIES: Final[tuple[Callable[[str], Story], ...]] = (
    whole_life, asked_and_stopped, doubtful, looked_into, repeated, kept,
)  # fmt: skip
LONGEST: Final = 150
"""More requests of the fuzzer than one story makes, told both ways."""
