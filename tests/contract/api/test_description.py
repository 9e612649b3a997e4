"""The OpenAPI document: every route is in it, nothing else is, and a whole story's answers are as it says."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from starlette.routing import Route

from fakes.hand import ask
from fakes.outside import LOGIN, OutsideIssuer
from fakes.served import Broker, Caller, step_body
from fakes.world import AUDIENCE
from stepgrant import canonical, receipt
from stepgrant._exchange import WorkloadKey
from stepgrant_broker.api.app import ENDPOINTS
from stepgrant_broker.api.problems import STATUSES
from stepgrant_broker.api.routing import WITH_BODY, Needs
from stepgrant_broker.domain.errors import StepgrantFault

OPENAPI_3_1 = {
    "type": "object",
    "required": ["openapi", "info", "paths", "components"],
    "properties": {
        "openapi": {"const": "3.1.0"},
        "paths": {
            "additionalProperties": {
                "additionalProperties": {
                    "type": "object",
                    "required": ["operationId", "summary", "responses", "security", "parameters"],
                    "properties": {"responses": {"required": ["200", "4XX", "5XX"]}},
                }
            }
        },
    },
}
STEP = "/v1/runs/{}/steps/{}"


def test_every_route_of_the_application_is_described(broker: Broker) -> None:
    served = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in broker.app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    described = {(path, method) for path, item in broker.described.document["paths"].items() for method in item}

    assert len(broker.app.routes) == len({path for path, _ in served})
    assert served == described == {(endpoint.path, endpoint.method.lower()) for endpoint in ENDPOINTS}


async def test_the_document_is_served_whole_and_refers_to_nothing_outside_itself(broker: Broker) -> None:
    served = (await broker.client.get("/openapi.json")).json()

    jsonschema.Draft202012Validator(OPENAPI_3_1).validate(served)
    assert served == json.loads(json.dumps(broker.described.document))
    names = {word for word in json.dumps(served).split('"') if word.startswith("#/components/schemas/")}
    assert names
    assert {name.rpartition("/")[2] for name in names} <= served["components"]["schemas"].keys()
    for schema in served["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    operations = [operation["operationId"] for item in served["paths"].values() for operation in item.values()]
    assert len(operations) == len(set(operations))


def test_bodies_are_closed_and_answers_are_open(broker: Broker) -> None:
    schemas = broker.described.document["components"]["schemas"]

    for endpoint in ENDPOINTS:
        if endpoint.method in WITH_BODY and endpoint.needs is not Needs.NOBODY:
            assert schemas[endpoint.takes.__name__]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["OpenedRun"]
    assert schemas["Problem"]["properties"]["code"]["enum"] == sorted(STATUSES)


def test_every_call_that_changes_something_needs_an_idempotency_key_but_redeem_and_the_exchange() -> None:
    without = {endpoint.path for endpoint in ENDPOINTS if endpoint.method != "GET" and not endpoint.keyed}

    assert without == {"/v1/grants/{jti}/redeem", "/oauth/token"}


def test_only_keys_health_metrics_the_log_and_the_exchange_ask_nobody_who_they_are() -> None:
    assert {endpoint.path for endpoint in ENDPOINTS if endpoint.needs is Needs.NOBODY} == {
        "/oauth/token", "/.well-known/jwks.json", "/v1/ledger/keys", "/openapi.json", "/healthz", "/readyz", "/metrics",
        "/v1/log/checkpoint", "/v1/log/keys", "/v1/log/tile/{tile}",
    }  # fmt: skip


def test_every_fault_of_the_domain_has_a_status() -> None:
    kinds = [StepgrantFault]
    for kind in kinds:
        kinds += kind.__subclasses__()

    ours = {kind.code for kind in kinds if kind.__module__.startswith("stepgrant_broker.domain")}
    # Of a store that was put back only the commands on the host tell: no broker runs over it.
    assert ours - {"store_rolled_back", "store_not_behind"} <= STATUSES.keys()


class Story:
    """A run, from its opening to its receipt, that calls every endpoint there is."""

    def __init__(self, broker: Broker, agent: Caller, server: Caller) -> None:
        self.broker, self.agent, self.server = broker, agent, server
        self.run = ""

    async def act(self, path: str, body: object = None) -> dict[str, Any]:
        response = await self.agent.call("POST", f"/v1/runs/{self.run}{path}", body)
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def get(self, path: str) -> dict[str, Any]:
        response = await self.agent.call("GET", path)
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def person(self, method: str, path: str, body: object = None, who: str = "olga") -> dict[str, Any]:
        response = await self.broker.person(method, path, body, who=who)
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def works(self) -> None:
        later = {"agent": "agent", "run_key": "later", "input": {"order": 2}}
        assert (await self.agent.call("POST", "/v1/runs/queue", later)).json()["state"] == "parked"
        self.run = (await self.agent.open(input={"order": 1}, labels={"team": "refunds"}))["run"]
        await self.act("/heartbeat", {"epoch": 1})
        await self.act("/steps/plan/record", {"epoch": 1, "name": "plan", "args": {"a": 1}, "result": ["refund"]})
        again = await self.act("/steps/plan/record", {"epoch": 1, "name": "plan", "args": {"a": 1}, "result": ["x"]})
        assert (again["outcome"], again["result"]) == ("replay", ["refund"])
        assert (await self.act("/steps/s1/prepare", step_body()))["outcome"] == "run"
        started = await self.act("/steps/s1/start", step_body())
        assert started["credential"]["hosts"] == [AUDIENCE]
        redeem = {"redemption_id": "r", "args_digest": _digest(step_body()), "proof_jti": "p"}
        spent = await self.server.call("POST", f"/v1/grants/{started['grant']['jti']}/redeem", redeem)
        assert spent.json()["act_before"] > spent.json()["now"]
        await self.act("/steps/s1/complete", {"epoch": 1, "attempt": 1, "result": {"id": "re_1"}})

    async def is_asked(self) -> None:
        asked = await self.act("/steps/s2/begin", step_body(ask(groups=["managers"], valid_for=600)))
        assert asked["outcome"] == "approval_required"
        listed = await self.person("GET", f"/v1/approvals?run={self.run}&status=pending", who="ann")
        assert [row["id"] for row in listed["approvals"]] == [asked["approval_id"]]
        shown = await self.person("GET", f"/v1/approvals/{asked['approval_id']}", who="ann")
        assert shown["action"] == {"tool": "refund.create", "resource": "order/1", "args": {"amount": 5}}
        assert shown["run_facts"]["id"] == self.run
        answer = {"verdict": "approve", "digest": shown["digest"], "note": "fine"}
        done = await self.person("POST", f"/v1/approvals/{asked['approval_id']}/decide", answer, who="ann")
        assert done["status"] == "approved"
        granted = await self.act("/steps/s2/begin", step_body(ask(groups=["managers"], valid_for=600)))
        assert granted["grant"]["approval"] == asked["approval_id"]
        await self.act("/steps/s2/suspend", {"epoch": 1, "attempt": 1})
        revoked = await self.person("POST", f"/v1/grants/{granted['grant']['jti']}/revoke", {})
        assert revoked["status"] == "revoked"

    async def fails_and_doubts(self) -> None:
        granted = await self.act("/steps/s3/begin", step_body())
        redeem = {"redemption_id": "r3", "args_digest": _digest(step_body()), "proof_jti": "p"}
        await self.server.call("POST", f"/v1/grants/{granted['grant']['jti']}/redeem", redeem)
        failed = await self.act("/steps/s3/fail", {"epoch": 1, "attempt": 1, "outcome": "unknown", "error": "timeout"})
        assert failed["in_doubt"]["step"] == "s3"
        settled = await self.person(
            "POST", STEP.format(self.run, "s3") + "/reconcile", {"attempt": 1, "verdict": "done", "result": {"id": 3}}
        )
        assert settled["state"] == "completed"

    async def repeats(self) -> None:
        """In a run of its own, whose holder comes back and has lost the ids of its calls."""
        run = f"/v1/runs/{(await self.agent.open('repeating'))['run']}"
        body = step_body(id_source="call_id")
        for path, sent in (
            ("/steps/call_1/begin", body),
            ("/steps/call_1/complete", {"epoch": 1, "attempt": 1, "result": 1}),
            ("/park", {"epoch": 1}),
        ):
            assert (await self.agent.call("POST", run + path, sent)).status_code == 200
        heir = await self.broker.agent()
        await heir.open("repeating")
        asked = (await heir.call("POST", f"{run}/steps/call_2/begin", {**body, "epoch": 2})).json()
        assert (asked["outcome"], asked["step"], asked["of"]) == ("suspected_duplicate", "call_2", "call_1")
        said = await self.person("POST", f"{run}/steps/call_2/duplicate", {"verdict": "replay", "note": "one order"})
        assert said == {"step": "call_2", "of": "call_1", "verdict": "replay", "state": "adopted"}
        await heir.call("POST", f"{run}/cancel", {"epoch": 2})

    async def is_declared_dead(self) -> None:
        """A login whose death its issuer confirmed: then nothing more is written of it."""
        assert isinstance(self.broker.ports.issuers, dict)
        self.broker.ports.issuers["outside"] = OutsideIssuer()
        agent = await self.broker.agent()
        run = (await agent.open("outside"))["run"]
        granted = (await agent.begin(run, decision=LOGIN)).json()
        await self.person("POST", f"/v1/runs/{run}/cancel")
        dead = await self.person("POST", f"/v1/grants/{granted['grant']['jti']}/declare-dead")
        assert (dead["status"], dead["cause"]) == ("revoked", "run_ended")

    async def is_looked_at(self) -> None:
        runs = f"/v1/runs/{self.run}"
        assert [row["id"] for row in (await self.get("/v1/runs?limit=5&state=open"))["runs"]] == [self.run]
        assert (await self.get(runs))["labels"] == {"team": "refunds"}
        steps = (await self.get(runs + "/steps?limit=2"))["steps"]
        assert [(row["key"], row["result"]) for row in steps] == [("plan", ["refund"]), ("s1", {"id": "re_1"})]
        shown = await self.get(runs + "/steps/s1")
        assert (shown["resource"], shown["result"], shown["state"]) == ("order/1", {"id": "re_1"}, "completed")
        assert len((await self.get(runs + "/entries?limit=3"))["entries"]) == 3
        decided = next(entry for entry in await _entries(self, runs) if entry["type"] == "decision")
        path = f"{runs}/decisions/{decided['decision']['decision_id']}"
        explained = await self.person("GET", path)
        assert explained["input"]["action"]["tool"] == "refund.create"
        evidence = await self.person("GET", f"{runs}/decisions?limit=500")
        assert len(evidence["entries"]) == len(await _entries(self, runs))
        assert {one["field"] for one in evidence["disclosures"]} == {"decision.input", "approval.binding"}
        assert (await self.person("GET", "/v1/ledger/decisions"))["entries"]
        grants = (await self.person("GET", f"/v1/grants?run={self.run}&limit=2"))["grants"]
        assert len(grants) == 2
        assert (await self.person("GET", "/v1/grants?live=true"))["grants"] == []
        assert (await self.person("GET", "/v1/ledger/entries?limit=500"))["entries"]
        policies = (await self.person("GET", "/v1/policies"))["policies"]
        assert [row["active"] for row in policies] == [True]
        policy = await self.person("GET", f"/v1/policies/{policies[0]['revision']}")
        assert "stepgrant/main.rego" in policy["text"]

    async def is_administered(self) -> None:
        key = WorkloadKey.generate("new")
        made = await self.person("POST", "/v1/workloads", {"name": "new", "jwk": key.public_jwk, "agents": ["agent"]})
        assert made["jkt"] == key.jkt
        assert made["id"] in {row["id"] for row in (await self.person("GET", "/v1/workloads"))["workloads"]}
        await self.person("DELETE", f"/v1/workloads/{made['id']}")
        who = await self.person("POST", "/v1/operators", {"name": "Eve", "roles": ["approver"], "groups": ["managers"]})
        assert who["token"].startswith("sgo_")
        assert "operator" in (await self.person("GET", "/v1/whoami"))["roles"]
        assert who["id"] in {row["id"] for row in (await self.person("GET", "/v1/operators"))["operators"]}
        await self.person("DELETE", f"/v1/operators/{who['id']}")
        await self.person("PUT", "/v1/secrets/mail", {"value": "hunter2", "hosts": ["mail.example"]})
        secrets = await self.person("GET", "/v1/secrets")
        assert [row["name"] for row in secrets["secrets"]] == ["mail"]
        assert "hunter2" not in json.dumps(secrets)
        await self.person("DELETE", "/v1/secrets/mail")
        await self.person("POST", "/v1/quarantine", {"issuer": "static"})
        listed = (await self.person("GET", "/v1/quarantine"))["quarantines"]
        assert ("issuer", "static", None) in {(row["kind"], row["name"], row["until"]) for row in listed}
        await self.person("POST", "/v1/quarantine/release", {"issuer": "static"})

    async def ends(self) -> None:
        await self.act("/park", {"epoch": 1, "reason": "requested"})
        heir = await self.broker.agent()
        assert (await heir.open())["resumed"] is True
        self.agent = heir
        await self.act("/complete", {"epoch": 2, "result": {"done": True}})
        for name, end in (("failing", "fail"), ("cancelled", "cancel")):
            agent = await self.broker.agent()
            run = (await agent.open(name))["run"]
            ended = await agent.call("POST", f"/v1/runs/{run}/{end}", {"epoch": 1})
            assert ended.json()["entries"] > 1
        response = await self.agent.call("GET", f"/v1/runs/{self.run}/receipt")
        keys = await self.broker.client.get("/v1/ledger/keys")
        assert receipt.verify(response.content, keys.content).complete

    async def is_erased(self) -> None:
        runs = f"/v1/runs/{self.run}"
        decided = next(entry for entry in await _entries(self, runs) if entry["type"] == "decision")
        erased = await self.person("POST", runs + "/erase")
        assert (erased["state"], erased["erased_at"]) == ("completed", (await self.get(runs))["erased_at"])
        shown = await self.get(runs + "/steps/s1")
        assert (shown["erased"], shown["result"], shown["resource"], shown["state"]) == (True, None, None, "completed")
        explained = await self.person("GET", f"{runs}/decisions/{decided['decision']['decision_id']}")
        assert (explained["erased"], explained["input"], explained["effect"]) == (True, None, "allow")


def _digest(body: dict[str, Any]) -> str:
    action = body["action"]
    return canonical.action_digest(action["tool"], action["resource"], action["args"])


async def _entries(story: Story, runs: str) -> list[dict[str, Any]]:
    rows = (await story.get(runs + "/entries"))["entries"]
    return [json.loads(canonical.b64u_decode(row["data"])) for row in rows]


async def test_a_whole_story_is_answered_as_the_document_says(broker: Broker) -> None:
    story = Story(broker, await broker.agent(), await broker.server())
    await story.works()
    await story.is_asked()
    await story.fails_and_doubts()
    await story.repeats()
    await story.is_declared_dead()
    await story.is_looked_at()
    await story.is_administered()
    await story.ends()
    await story.is_erased()
    await broker.sequencer.round()
    for path in (
        "/.well-known/jwks.json", "/v1/ledger/keys", "/openapi.json", "/healthz", "/readyz", "/metrics",
        "/v1/log/checkpoint", "/v1/log/keys", "/v1/log/tile/0/000.p/1",
    ):  # fmt: skip
        broker.checked(await broker.client.get(path))

    answered = {(method, path) for method, path, status in broker.described.seen if status == "200"}
    assert answered == {(endpoint.method.lower(), endpoint.path) for endpoint in ENDPOINTS}
