"""Schemathesis walks our OpenAPI document against a real broker over HTTP; most callers are who they say, some are not.

What Schemathesis draws from the schemas is sent as it is one time in five; else the names in it are made live ones: a
run that is there with its epoch, a grant that was issued, an approval with the digest that was shown. So it gets past
the door, and stays stateful where OpenAPI links cannot say how (epochs, digests, proofs). Half of it comes first from
a caller who is not proven, in one of the ways of `http_unproven`, and must be refused with the code of that way
whatever else it asks for; then, like the other half, from one who is.

What is drawn seldom gets deep, and never surely: a broker answers with ids and times of its own, so the same seed need
not draw the same twice. So as many requests again belong to the stories of `http_stories` (`http_teller`).

Only what is drawn, changed or not proven is counted as a request of the fuzzer.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
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
from fakes.outside import OutsideIssuer
from security.fuzz.http_callers import Callers, kinds_of
from security.fuzz.http_live import Live
from security.fuzz.http_stories import STORIES
from security.fuzz.http_teller import TELLINGS, Teller
from security.fuzz.http_unproven import USED_BEFORE, WAYS, ways_for
from soak.result import Result
from stepgrant_broker.testing import TestHost, start
from stepgrant_broker.wiring import Broker

STEPS_EACH: Final = 25
EXAMPLES_EACH: Final = 8
TWINNED: Final = 0.5
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


def drawable(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with links, so that Schemathesis knows what follows from what, and without the callers' headers."""
    made = deepcopy(dict(document))
    paths = made["paths"]
    for operations in paths.values():
        for operation in operations.values():
            operation["parameters"] = [one for one in operation.get("parameters", ()) if one["in"] != "header"]
    for (path, method), (parameters, needs) in LINKS.items():
        links = {}
        for target, operations in paths.items():
            for verb, operation in operations.items():
                if needs in target:
                    links[f"{verb}{target}"] = {"operationId": operation["operationId"], "parameters": parameters}
        paths[path][method]["responses"]["200"]["links"] = links
    return made


class Walk:
    """What one slice shares: the broker, who calls, what is alive, and what was found."""

    def __init__(self, host: TestHost, number: int) -> None:
        self.host, self.rng = host, random.Random(number)
        self.live = Live(self.rng)
        self.callers = Callers(host, self.rng)
        self.session = requests.Session()
        self.session.trust_env = False  # it would read proxies and passwords of this machine anew for each request
        self.counts: Counter[str] = Counter()
        self.found: list[str] = []
        self.refusals: Counter[tuple[str, str]] = Counter()

    def drawn(self, case: schemathesis.Case[Any]) -> schemathesis.Response:
        """What Schemathesis drew; half of it also comes first from a caller who is not proven."""
        before = self.counts["requests"]
        self.live.enliven(case)
        ways = ways_for(kinds_of(case))
        if ways and self.rng.random() < TWINNED:
            self.unproven(case, self.rng.choice(ways))
        response = self.fuzzed(case)
        self.counts["drawn"] += self.counts["requests"] - before
        return response

    def fuzzed(self, case: schemathesis.Case[Any], who: str = "") -> schemathesis.Response:
        """A request of the fuzzer, truly by who it says."""
        self._spare(case)
        self.callers.authenticate(case, who=who)
        self.counts["requests"] += 1
        return self.send(case)

    def unproven(self, case: schemathesis.Case[Any], way: str, who: str = "") -> schemathesis.Response:
        """A request of the fuzzer by a caller who is not proven: refused with the code of the way, whatever it asks."""
        self._spare(case)
        self.callers.authenticate(case, who=who, way=way)
        return self._refused(case, way, WAYS[way][0])

    def again(self, case: schemathesis.Case[Any], code: str) -> schemathesis.Response:
        """A request of the fuzzer: one that was taken, under another key but with the same proof."""
        self.callers.key(case, keyed=1.0)
        return self._refused(case, USED_BEFORE, code)

    def _refused(self, case: schemathesis.Case[Any], way: str, code: str) -> schemathesis.Response:
        self.counts["requests"] += 1
        response = self.send(case)
        if _code(response) == code:
            self.counts[f"refused: {way}"] += 1
            self.refusals[f"{case.method} {case.path}", way] += 1
        elif _code(response) not in UNAVAILABLE and not _is_nowhere(response):
            self.found.append(f"{_what(case, response)} {_code(response)}, but the caller was not proven: {way}")
        return response

    def _spare(self, case: schemathesis.Case[Any]) -> None:
        """Nobody takes away what the walk stands on."""
        for name, value in (case.path_parameters or {}).items():
            if value in self.callers.own:  # whoever removes itself has nothing more to say
                case.path_parameters[name] = "another"
        if case.path == "/v1/quarantine" and isinstance(case.body, dict) and self.callers.own & _texts(case.body):
            case.body = {"run": "another"}

    def send(self, case: schemathesis.Case[Any]) -> schemathesis.Response:
        """Send it as it is, and look at the answer."""
        response = case.call(base_url=self.host.url, session=self.session, allow_redirects=False, timeout=120)
        self.counts[f"{response.status_code // 100}xx"] += 1
        if response.status_code >= 500 and not (response.status_code == 503 and _code(response) in UNAVAILABLE):
            self.found.append(f"{_what(case, response)}: {response.text[:500]}")
        if response.status_code == 200:
            self.counts[f"200 {case.method} {case.path}"] += 1
            self.live.harvest(case, response)
            if "DPoP" in case.headers:
                self.callers.remember(case)
        else:
            self.counts[f"{_code(response)}"] += 1
        self._check(case, response)
        return response

    def _check(self, case: schemathesis.Case[Any], response: schemathesis.Response) -> None:
        """The answer is as the document says."""
        try:
            case.validate_response(response, checks=CHECKS)
        except Exception as error:  # noqa: BLE001 - Schemathesis groups its failures in several types
            self.found.append(f"{case.method} {case.formatted_path}: {error}"[:1500])


def _what(case: schemathesis.Case[Any], response: schemathesis.Response) -> str:
    return f"{case.method} {case.formatted_path} {case.query} {str(case.body)[:500]} -> {response.status_code}"


def _texts(body: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(value for value in body.values() if isinstance(value, str))


def _code(response: schemathesis.Response) -> str:
    try:
        return str(response.json().get("code"))
    except (ValueError, AttributeError):
        return ""


def _is_nowhere(response: schemathesis.Response) -> bool:
    """A drawn path can be none of ours; then nobody is asked who they are."""
    return _code(response) == "not_found" and response.json()["detail"] == "there is nothing at this path"


def machine_of(walk: Walk, schema: schemathesis.BaseSchema) -> Any:  # noqa: ANN401 - made by Schemathesis
    """The state machine over the document."""
    base = schema.as_state_machine()

    class Machine(base):  # type: ignore[misc, valid-type]  # made at run time
        def call(self, case: schemathesis.Case[Any], **_: Any) -> schemathesis.Response:  # noqa: ANN401 - Schemathesis'
            return walk.drawn(case)

        def validate_response(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - Schemathesis'
            """The walk has looked at every answer when it came."""

    return Machine


async def _has_logins(broker: Broker) -> None:
    """An issuer outside, whose credentials can be declared dead."""
    assert isinstance(broker.ports.issuers, dict)
    broker.ports.issuers["outside"] = OutsideIssuer()


def slice(number: int, size: int) -> Result:  # noqa: A001 - the name that soak looks for
    """At least `size` requests of the fuzzer, half of them drawn by Schemathesis; every story often enough."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), policy={"stepgrant/main.rego": REGO}) as host:
        host.call(_has_logins)
        walk = Walk(host, number)
        document = requests.get(f"{host.url}/openapi.json", timeout=120).json()
        schema = schemathesis.openapi.from_dict(drawable(document))
        schema.config.generation.update(with_security_parameters=False)
        machine, teller = machine_of(walk, schema), Teller(walk, schema)
        how = settings(
            max_examples=EXAMPLES_EACH, stateful_step_count=STEPS_EACH, deadline=None, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        while walk.counts["requests"] < size or teller.told < TELLINGS * len(STORIES):
            while walk.counts["drawn"] * 2 > walk.counts["requests"]:
                teller.tell()
            seed(number * 1_000_003 + walk.counts["rounds"])(machine)
            walk.counts["rounds"] += 1
            # The broker remembers what the rounds before did to it, so the same draws may meet another answer.
            with suppress(Flaky):
                run_state_machine_as_test(machine, settings=how)
        walk.session.close()
        walk.callers.close()
        walk.counts["stories"] = teller.told
        return Result(dict(walk.counts), [*walk.found, *teller.missing(document)][:20])
