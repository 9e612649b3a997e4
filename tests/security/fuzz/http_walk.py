"""Schemathesis walks our OpenAPI document against a real broker over HTTP; most callers are who they say, some are not.

What Schemathesis draws from the schemas is sent as it is one time in four; else the names in it are made live ones: a
run that is there with its epoch, a grant that was issued, an approval with the digest that was shown. So it gets past
the door, and stays stateful where OpenAPI links cannot say how (epochs, digests, proofs). One request in five has a
corrupted authentication, and must be refused whatever else it asks for.

What is drawn seldom gets deep, and never surely: a broker answers with ids and times of its own, so the same seed need
not draw the same twice. So as many requests again tell the stories of `http_stories`, one honestly, one not:

* honestly: a request that works follows its twins with corrupted authentication, which thus have done nothing;
* not honestly: bodies and names are changed first, and the story goes on as long as the true request is let.

Only what is drawn, corrupted or changed is counted as a request of the fuzzer.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fakes.hand import REGO
from security.fuzz import odd_json
from security.fuzz.http_callers import Callers, Sent
from security.fuzz.http_live import Live
from security.fuzz.http_stories import STORIES, Ask, Story
from soak.result import Result
from stepgrant_broker.testing import TestHost, start

STEPS_EACH: Final = 25
EXAMPLES_EACH: Final = 8
PATIENT: Final = 20
UNAVAILABLE: Final = frozenset({"ledger_unavailable", "policy_unavailable", "issuer_unavailable", "conflict"})
UNPROVEN: Final = frozenset({400, 401, 403, 404, 405, 413, 415, 422})
CHECKS: Final = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
]  # fmt: skip
LINKS: Final = {
    ("/v1/runs", "post"): ({"run": "$response.body#/run"}, "{run}"),
    ("/v1/workloads", "post"): ({"workload": "$response.body#/id"}, "{workload}"),
    ("/v1/operators", "post"): ({"operator": "$response.body#/id"}, "{operator}"),
    ("/v1/runs/{run}/steps/{step}/begin", "post"): (
        {"run": "$request.path.run", "step": "$request.path.step"}, "{step}",
    ),
}  # fmt: skip
"""Which answers name something that other paths take."""


def linked(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with links, so that Schemathesis knows what follows from what."""
    paths = document["paths"]
    for (path, method), (parameters, needs) in LINKS.items():
        links = {}
        for target, operations in paths.items():
            for verb, operation in operations.items():
                if needs in target:
                    links[f"{verb}{target}"] = {"operationId": operation["operationId"], "parameters": parameters}
        paths[path][method]["responses"]["200"]["links"] = links
    return dict(document)


class Walk:
    """What one slice shares: the broker, who calls, what is alive, and what was found."""

    def __init__(self, host: TestHost, number: int) -> None:
        self.host, self.rng = host, random.Random(number)
        self.live = Live(self.rng)
        self.callers = Callers(host, self.rng)
        self.session = requests.Session()
        self.counts: Counter[str] = Counter()
        self.found: list[str] = []

    def drawn(self, case: schemathesis.Case[Any]) -> schemathesis.Response:
        """What Schemathesis drew, with true or corrupted authentication."""
        self.live.enliven(case)
        self.counts["drawn"] += 1
        return self.fuzzed(case)

    def fuzzed(self, case: schemathesis.Case[Any], **how: Any) -> schemathesis.Response:  # noqa: ANN401 - of send
        """A request of the fuzzer; it never takes away what it stands on."""
        for name, value in (case.path_parameters or {}).items():
            if value in self.callers.own:  # whoever removes itself has nothing more to say
                case.path_parameters[name] = "another"
        if case.path == "/v1/quarantine" and isinstance(case.body, dict) and self.callers.own & _texts(case.body):
            case.body = {"run": "another"}
        self.counts["requests"] += 1
        return self.send(case, **how)

    def send(self, case: schemathesis.Case[Any], **how: Any) -> schemathesis.Response:  # noqa: ANN401 - of Callers
        """Send it and look at the answer."""
        sent = self.callers.authenticate(case, **how)
        response = case.call(base_url=self.host.url, session=self.session, allow_redirects=False, timeout=20)
        self.counts[f"{response.status_code // 100}xx"] += 1
        self.counts["corrupted"] += bool(sent.corrupted)
        self._judge(case, sent, response)
        if response.status_code != 200 and not sent.corrupted:
            self.counts[f"{_code(response)}"] += 1
        if response.status_code == 200:
            self.counts[f"200 {case.method} {case.path}"] += 1
            self.live.harvest(case, response)
            if "DPoP" in case.headers and not sent.corrupted:
                self.callers.remember(case.headers)
        return response

    def _judge(self, case: schemathesis.Case[Any], sent: Sent, response: schemathesis.Response) -> None:
        what = f"{case.method} {case.formatted_path} {case.query} {str(case.body)[:500]} -> {response.status_code}"
        if response.status_code >= 500 and not (response.status_code == 503 and _code(response) in UNAVAILABLE):
            self.found.append(f"{what}: {response.text[:500]}")
        # A used proof is found at the commit; what the state refuses before commits nothing, and may say so.
        refusals = UNPROVEN | {409} if sent.corrupted == "used before" else UNPROVEN
        if sent.corrupted and sent.needed and response.status_code not in refusals:
            self.found.append(f"{what}, but the caller was not proven ({sent.corrupted})")

    def check(self, case: schemathesis.Case[Any], response: schemathesis.Response) -> None:
        """The answer is as the document says."""
        try:
            case.validate_response(response, checks=CHECKS)
        except Exception as error:  # noqa: BLE001 - Schemathesis groups its failures in several types
            self.found.append(f"{case.method} {case.formatted_path}: {error}"[:1500])


def _texts(body: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(value for value in body.values() if isinstance(value, str))


def _code(response: schemathesis.Response) -> str:
    try:
        return str(response.json().get("code"))
    except (ValueError, AttributeError):
        return ""


def machine_of(walk: Walk, document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - made by Schemathesis
    """The state machine over the document."""
    base = schemathesis.openapi.from_dict(linked(document)).as_state_machine()

    class Machine(base):  # type: ignore[misc, valid-type]  # made at run time
        def call(self, case: schemathesis.Case[Any], **_: Any) -> schemathesis.Response:  # noqa: ANN401 - Schemathesis'
            return walk.drawn(case)

        def validate_response(
            self,
            response: schemathesis.Response,
            case: schemathesis.Case[Any],
            **_: Any,  # noqa: ANN401
        ) -> None:
            walk.check(case, response)

    return Machine


class Teller:
    """Tells the stories to the walk's broker, each under a name of its own."""

    def __init__(self, walk: Walk, document: Mapping[str, Any]) -> None:
        self.walk, self.rng = walk, walk.rng
        self.schema = schemathesis.openapi.from_dict(dict(document))

    def tell(self, number: int) -> None:
        """One story, honestly, and then not."""
        make = STORIES[number % len(STORIES)]
        self._tell(f"{make.__name__}-{number}", make, self._truly)
        self._tell(f"{make.__name__}-{number}-wild", make, self._wildly)

    def _tell(
        self, name: str, make: Callable[[str], Story], send: Callable[[str, Ask], schemathesis.Response | None]
    ) -> None:
        self.walk.callers.succeed()
        story = make(name)
        ask = next(story)
        with suppress(StopIteration):
            while (response := send(name, ask)) is not None:
                ask = story.send(response.json())
        story.close()

    def _truly(self, name: str, ask: Ask) -> schemathesis.Response | None:
        for _ in range(self.rng.randrange(3)):
            case = self._case(ask)
            self.walk.check(case, self.walk.fuzzed(case, who=ask.who, corrupted=1.0))
        response = self._true(ask)
        if response.status_code == 200:
            self.walk.counts[f"told {ask.method} {ask.path}"] += 1
            return response
        self.walk.found.append(f"{name}: {ask} -> {response.status_code} {response.text[:500]}")
        return None

    def _wildly(self, _: str, ask: Ask) -> schemathesis.Response | None:
        for _again in range(1 + self.rng.randrange(2)):
            case = self._case(ask)
            if case.path_parameters and (ask.body is None or self.rng.random() < 0.2):
                self.walk.live.rename(case)
            elif ask.body is not None:
                case.body = odd_json.changed(self.rng, dict(ask.body))
            self.walk.check(case, self.walk.fuzzed(case, who=ask.who))
        response = self._true(ask)
        return response if response.status_code == 200 else None

    def _true(self, ask: Ask) -> schemathesis.Response:
        """The request as it is; again if the broker says that it cannot now (a busy machine is no finding)."""
        again = PATIENT
        while (response := self._once(ask)).status_code == 503 and (again := again - 1):
            time.sleep(0.5)
        return response

    def _once(self, ask: Ask) -> schemathesis.Response:
        case = self._case(ask)
        response = self.walk.send(case, who=ask.who, corrupted=0.0, keyed=1.0)
        self.walk.check(case, response)
        return response

    def _case(self, ask: Ask) -> schemathesis.Case[Any]:
        case = self.schema[ask.path][ask.method].Case(path_parameters=dict(ask.where), headers={}, query={})
        if ask.body is not None:
            case.body, case.media_type = dict(ask.body), "application/json"
        return case


def slice(number: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """At least `size` requests of the fuzzer, half of them drawn by Schemathesis, and each story at least once."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), policy={"stepgrant/main.rego": REGO}) as host:
        walk = Walk(host, number)
        document = requests.get(f"{host.url}/openapi.json", timeout=20).json()
        machine, teller = machine_of(walk, document), Teller(walk, document)
        how = settings(
            max_examples=EXAMPLES_EACH, stateful_step_count=STEPS_EACH, deadline=None, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        while walk.counts["requests"] < size or walk.counts["stories"] < len(STORIES):
            while walk.counts["drawn"] * 2 > walk.counts["requests"]:
                teller.tell(walk.counts["stories"])
                walk.counts["stories"] += 1
            seed(number * 1_000_003 + walk.counts["rounds"])(machine)
            walk.counts["rounds"] += 1
            # The broker remembers what the rounds before did to it, so the same draws may meet another answer.
            with suppress(Flaky):
                run_state_machine_as_test(machine, settings=how)
        walk.session.close()
        return Result(dict(walk.counts), walk.found[:20])
