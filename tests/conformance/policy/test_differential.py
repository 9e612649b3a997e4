"""The embedded engine and OPA decide the same: every starter policy, every case, and thousands of made-up inputs.

The decision is compared as the broker reads it (`contract.parse`). Numbers are compared exactly in both engines,
because inputs and policies hold each number in its one canonical text; sums of fractions are avoided by
`stepgrant.units`, which is compared with the broker's own counting here.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from conformance.policy.adapters import embedded, opa
from policies import HEAD, call
from policy_inputs import doubles, inputs
from stepgrant import canonical
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.ports import PolicyEngine
from stepgrant_broker.policy.bundle import (
    SETTINGS,
    Bundle,
    from_files,
    read_demo,
    read_directory,
    read_starter,
    starter_files,
)
from stepgrant_broker.policy.contract import MAX_METER, _micro, parse

pytestmark = pytest.mark.needs("opa")

OpaOf = Callable[[Bundle], str]
ROOT = Path(__file__).parents[3]
COUNT = 1_000
AT_ONCE = 16
DEADLINE_S = 20.0

FULL: dict[str, Any] = {
    "agents": {
        "billing": {
            "budgets": {"usd": 0.3, "calls": 3, "big": 9007199254},
            "open": {"subjects": ["wl_probe", "ä"]},
            "takeover": {"subjects": ["wl_other", "\U0001f600"]},
            "tools": {
                "pay": {
                    "effect": "once", "ttl": 30, "amount": {"arg": "amount", "max": 0.3, "ask_above": 0.1},
                    "meters": {"usd": {"arg": "amount"}, "calls": {"each": 1}},
                    "approval": {"groups": ["finance"], "quorum": 2},
                },
                "sip": {"effect": "idempotent", "meters": {"usd": {"each": 0.1}}, "labels": ["pii:customer", "a"]},
                "move": {"effect": "once", "meters": {"big": {"arg": "total"}, "missing": {"each": 0.000001}}},
                "tiny": {"effect": "read", "meters": {"usd": {"arg": "n"}}},
                "post": {
                    "effect": "once", "resources": {"order/991": "https://a.example", "ä": "https://b.example"},
                    "issuer": "static", "params": {"name": "key", "deep": {"of": [1, 0.5, None]}}, "redeem": "optional",
                },
                "mail.send": {"effect": "once", "ask": True, "audience": "https://mail.example", "digest_only": True},
            },
        },
        "ä": {"tools": {"\u2028": {"effect": "read"}, "mail.send": {"effect": "read", "ttl": 1}}},
    },
    "approval": {"groups": [], "quorum": 1, "answer_within": 86400, "valid_for": 900},
    "flows": {"pii:customer": {"blocks": ["mail.send"]}, "a": {"blocks": ["pay", "\u2028"]}},
    "resume": {"ask_after_parked_seconds": 86400},
    "ttl": {"read": 300, "idempotent": 120, "once": 60},
}  # fmt: skip


def with_hours() -> Bundle:
    """The starter with the rule that policies/README.md adds."""
    rule = re.findall(r"```rego\n(.*?)```", (ROOT / "policies/README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    return from_files({**starter_files(), "stepgrant/rules/hours/hours.rego": rule})


def every_setting() -> Bundle:
    """The starter with settings that its schema would not let pass: engines have to agree on those too."""
    files = {path: data for path, data in starter_files().items() if not path.endswith("schema.json")}
    return from_files({**files, SETTINGS: canonical.dumps(FULL)})


POLICIES: dict[str, Bundle] = {
    "starter": read_starter(),
    "demo": read_demo(),
    "every setting": every_setting(),
    "one more rule": with_hours(),
    "benchmark": from_files({"stepgrant/main.rego": (ROOT / "tests/bench/policy.rego").read_text(encoding="utf-8")}),
    "scaffold": read_starter((ROOT / "broker/stepgrant_broker/commands/scaffold/policy/data.json").read_bytes()),
}


@asynccontextmanager
async def both(bundle: Bundle, opa_of: OpaOf) -> AsyncIterator[tuple[PolicyEngine, PolicyEngine]]:
    url = opa_of(bundle)
    async with embedded("1:x", bundle, DEADLINE_S) as one, opa(url, "1:x", bundle, DEADLINE_S) as other:
        yield one, other


async def differences(engines: Sequence[PolicyEngine], questions: Sequence[bytes]) -> list[tuple[bytes, list[object]]]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def differs(question: bytes) -> tuple[bytes, list[object]] | None:
        async with turn:
            found = [await said(engine, question) for engine in engines]
        return None if found[0] == found[1] else (question, found)

    compared = await asyncio.gather(*(differs(question) for question in questions))
    return [one for one in compared if one is not None]


async def said(engine: PolicyEngine, question: bytes) -> object:
    try:
        return parse((await engine.evaluate(question)).raw)
    except PolicyUnavailable:
        return "unavailable"


@pytest.mark.parametrize("name", POLICIES)
async def test_made_up_inputs(name: str, opa_of: OpaOf) -> None:
    bundle = POLICIES[name]
    settings = dict(bundle.data).get("stepgrant_config", FULL)
    questions = list(inputs(settings, COUNT, seed=sorted(POLICIES).index(name)))
    async with both(bundle, opa_of) as engines:
        assert await differences(engines, questions) == []
        kinds = {type(await said(engines[1], question)).__name__ for question in questions[:300]}
    assert "Deny" in kinds
    assert "Allow" in kinds, "the inputs reach nothing that is allowed"


@pytest.mark.parametrize("name", POLICIES)
async def test_every_case(name: str, opa_of: OpaOf) -> None:
    cases = [case for text in read_starter().cases.values() for case in json.loads(text)]
    async with both(POLICIES[name], opa_of) as engines:
        assert await differences(engines, [canonical.dumps(case["input"]) for case in cases]) == []


async def test_a_policy_folder_like_the_one_of_a_new_project(opa_of: OpaOf, tmp_path: Path) -> None:
    for path, raw in starter_files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(raw)
    bundle = read_directory(tmp_path)
    async with both(bundle, opa_of) as engines:
        questions = list(inputs(dict(bundle.data)["stepgrant_config"], 100, seed=99))
        assert await differences(engines, questions) == []


async def test_millionths_are_those_that_the_broker_counts(opa_of: OpaOf) -> None:
    """Of any double whatever: in both engines, and in the broker."""
    text = HEAD + (
        'decision := {"effect": "allow", "reasons": ["ok"], "grant": {"params": {"all": xs}}} if input.tenant\n\n'
        "xs := [[x, units.millionths(x)] | some x in input.action.args.xs]\n"
    )
    units = (ROOT / "policies/stepgrant_policies/stepgrant/units/units.rego").read_text(encoding="utf-8")
    main = text.replace("package stepgrant\n", "package stepgrant\n\nimport data.stepgrant.units\n", 1)
    bundle = from_files({"stepgrant/main.rego": main, "stepgrant/units/units.rego": units})
    assert SETTINGS not in bundle.files
    numbers = list(doubles(6_000, seed=7))
    async with both(bundle, opa_of) as engines:
        for start in range(0, len(numbers), 100):
            batch = numbers[start : start + 100]
            wanted = [[x, _micro(x)] for x in batch if 0 <= x <= MAX_METER]
            for engine in engines:
                raw = (await engine.evaluate(call(args={"xs": [x for x in batch if x <= MAX_METER]}))).raw
                assert raw is not None
                assert json.loads(raw)["grant"]["params"]["all"] == wanted
