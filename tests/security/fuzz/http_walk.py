"""Schemathesis walks our OpenAPI document against a real broker over HTTP; most callers are who they say, some are not.

What Schemathesis draws from the schemas is sent as it is one time in four; else the names in it are made live ones: a
run that is there with its epoch, a grant that was issued, an approval with the digest that was shown. So it gets past
the door, and stays stateful where OpenAPI links cannot say how (epochs, digests, proofs). One request in five has a
corrupted authentication, and must be refused whatever else it asks for.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Mapping
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
from security.fuzz.http_callers import Callers, Sent
from security.fuzz.http_live import Live
from soak.result import Result
from stepgrant_broker.testing import TestHost, start

STEPS_EACH: Final = 25
EXAMPLES_EACH: Final = 8
UNAVAILABLE: Final = frozenset({"ledger_unavailable", "policy_unavailable", "issuer_unavailable", "conflict"})
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

    def send(self, case: schemathesis.Case[Any]) -> schemathesis.Response:
        """Send it with true or corrupted authentication, and look at the answer."""
        self.live.enliven(case)
        for name, value in (case.path_parameters or {}).items():
            if value in self.callers.own:  # whoever removes itself has nothing more to say
                case.path_parameters[name] = "another"
        sent = self.callers.authenticate(case)
        response = case.call(base_url=self.host.url, session=self.session, allow_redirects=False, timeout=20)
        self.counts["requests"] += 1
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
        if sent.corrupted and sent.needed and response.status_code not in {400, 401, 403, 404, 405, 413, 415, 422}:
            self.found.append(f"{what}, but the caller was not proven ({sent.corrupted})")

    def check(self, case: schemathesis.Case[Any], response: schemathesis.Response) -> None:
        """The answer is as the document says."""
        try:
            case.validate_response(response, checks=CHECKS)
        except Exception as error:  # noqa: BLE001 - Schemathesis groups its failures in several types
            self.found.append(f"{case.method} {case.formatted_path}: {error}"[:1500])


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
            return walk.send(case)

        def validate_response(
            self,
            response: schemathesis.Response,
            case: schemathesis.Case[Any],
            **_: Any,  # noqa: ANN401
        ) -> None:
            walk.check(case, response)

    return Machine


def slice(number: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """At least `size` requests."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), policy={"stepgrant/main.rego": REGO}) as host:
        walk = Walk(host, number)
        document = requests.get(f"{host.url}/openapi.json", timeout=20).json()
        machine = machine_of(walk, document)
        how = settings(
            max_examples=EXAMPLES_EACH, stateful_step_count=STEPS_EACH, deadline=None, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        while walk.counts["requests"] < size:
            seed(number * 1_000_003 + walk.counts["rounds"])(machine)
            walk.counts["rounds"] += 1
            # The broker remembers what the rounds before did to it, so the same draws may meet another answer.
            with suppress(Flaky):
                run_state_machine_as_test(machine, settings=how)
        walk.session.close()
        return Result(dict(walk.counts), walk.found[:20])
