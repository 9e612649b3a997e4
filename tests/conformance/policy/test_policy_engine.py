"""What every policy engine must do, whatever it is made of."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from conformance.policy.conftest import Running
from engines import PATIENCE_S, hurried, served
from lateness import lateness
from policies import ALLOW, HEAD, SLOW, call, one, slow
from stepgrant import canonical
from stepgrant_broker.domain.decisions import Allow, Deny
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.domain.ports import PolicyEngine
from stepgrant_broker.policy.bundle import read_starter
from stepgrant_broker.policy.contract import parse

CORPUS = json.loads((Path(__file__).parent / "builtins.json").read_bytes())
CASES = [
    pytest.param(case, id=f"{path}-{case['name']}")
    for path, text in sorted(read_starter().cases.items())
    for case in json.loads(text)
]
NO_RULE = Deny(("no_rule_matched",))


async def decided(engine: PolicyEngine, policy_input: bytes) -> object:
    return parse((await engine.evaluate(policy_input)).raw)


async def test_an_answer_carries_the_revision_an_id_of_its_own_and_the_engine(running: Running) -> None:
    engine = await running(one(ALLOW), revision="7:sha-256:abc")
    first, second = await engine.evaluate(call()), await engine.evaluate(call())
    assert (first.revision, second.revision) == ("7:sha-256:abc", "7:sha-256:abc")
    assert first.decision_id != second.decision_id
    assert first.engine
    assert first.raw is not None
    assert json.loads(first.raw) == {"effect": "allow", "reasons": ["listed"]}


async def test_what_no_rule_matches_is_denied(running: Running) -> None:
    engine = await running(one(ALLOW))
    assert await decided(engine, call("other")) == NO_RULE
    assert await decided(engine, b"{}") == NO_RULE


@pytest.mark.parametrize("case", CASES)
async def test_whole_decisions_of_the_starter_policy(running: Running, case: dict[str, object]) -> None:
    engine = await running(read_starter())
    answer = await engine.evaluate(canonical.dumps(case["input"]))  # type: ignore[arg-type]
    assert answer.raw is not None
    assert json.loads(answer.raw) == case["decision"]


async def test_functions_answer_as_they_did_when_they_were_allowed(running: Running) -> None:
    values = ",\n".join(case["expression"] for case in CORPUS)
    answered = '{"effect": "allow", "reasons": ["ok"], "grant": {"params": {"all": all_values}}}'
    engine = await running(one(HEAD + f"decision := {answered} if input.tenant\n\nall_values := [\n{values},\n]\n"))
    answer = await engine.evaluate(call())
    assert answer.raw is not None
    found = json.loads(answer.raw)["grant"]["params"]["all"]
    wrong = {case["expression"]: got for case, got in zip(CORPUS, found, strict=True) if got != case["value"]}
    assert wrong == {}


@pytest.mark.parametrize(("cap", "ttl"), [(300, 60), (1000, 60), (9, 9), (100, 60)])
async def test_a_cap_compares_numbers_not_texts(running: Running, cap: int, ttl: int) -> None:
    text = HEAD + (
        'decision := {"effect": "allow", "reasons": ["ok"], "grant": {"ttl": min([60, input.action.args.cap])}}\n'
    )
    engine = await running(one(text))
    decision = await decided(engine, call(args={"cap": cap}))
    assert isinstance(decision, Allow)
    assert decision.grant.ttl_s == ttl


@pytest.mark.parametrize(
    "body",
    [
        "x := [helper]\n\ttrue",
        "x := {helper}\n\ttrue",
        'x := {"a": helper}\n\ttrue',
        "count([helper]) >= 0",
        "x := object.get({}, helper, true)\n\tx",
        "every y in input.action.nothing {\n\t\ty\n\t}",
    ],
)
async def test_an_undefined_helper_lets_nothing_through(running: Running, body: str) -> None:
    helper = 'helper if input.action.args.here\n\nhelper if input.agent.version == "x"\n'
    text = HEAD + f'decision := {{"effect": "allow", "reasons": ["ok"]}} if {{\n\tinput.tenant\n\t{body}\n}}\n\n'
    text += helper if "helper" in body else ""
    bundle = one(text.replace("input.action.nothing", "input.action.args.nothing"))
    engine = await running(bundle)
    assert await decided(engine, call()) == NO_RULE


async def test_a_denial_through_a_negated_helper_fires_when_its_input_is_missing(running: Running) -> None:
    text = HEAD + (
        'decision := {"effect": "deny", "reasons": ["not_small"]} if not small\n\n'
        'decision := {"effect": "allow", "reasons": ["small"]} if small\n\n'
        "small if {\n\tis_number(input.action.args.amount)\n\tinput.action.args.amount < 10\n}\n"
    )
    engine = await running(one(text))
    assert await decided(engine, call(args={})) == Deny(("not_small",))
    assert await decided(engine, call(args={"amount": None})) == Deny(("not_small",))
    assert isinstance(await decided(engine, call(args={"amount": 9})), Allow)


async def test_two_rules_that_answer_differently_are_unavailable(running: Running) -> None:
    text = HEAD + (
        'decision := {"effect": "allow", "reasons": ["a"]} if input.action.tool == "both"\n\n'
        'decision := {"effect": "deny", "reasons": ["b"]} if input.action.effect == "once"\n'
    )
    engine = await running(one(text))
    with pytest.raises(PolicyUnavailable):
        await engine.evaluate(call("both", effect="once"))
    assert await decided(engine, call("other")) == NO_RULE


async def test_an_error_while_deciding_is_never_an_allow(running: Running) -> None:
    text = HEAD + (
        'decision := {"effect": "allow", "reasons": ["ok"]} if {\n'
        '\tinput.action.tool == "convert"\n\tto_number(input.action.args.n) >= 0\n}\n'
    )
    engine = await running(one(text))
    # regorus calls this an error, OPA undefined.
    try:
        decision = await decided(engine, call("convert", args={"n": "many"}))
    except PolicyUnavailable:
        decision = NO_RULE
    assert decision == NO_RULE
    assert isinstance(await decided(engine, call("convert", args={"n": "7"})), Allow)


@pytest.mark.parametrize("policy_input", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000])
async def test_what_is_no_input_is_unavailable(running: Running, policy_input: bytes) -> None:
    engine = await running(one(ALLOW))
    with pytest.raises(PolicyUnavailable):
        await engine.evaluate(policy_input)
    assert isinstance(await decided(engine, call()), Allow)


async def test_a_query_that_hangs_is_unavailable_in_time_and_the_next_is_served(running: Running) -> None:
    engine = await running(one(SLOW))
    hurried(engine, 0.5)
    async with lateness() as late:
        before = time.monotonic()
        with pytest.raises(PolicyUnavailable, match="no decision within"):
            await engine.evaluate(slow(300))  # some seconds
        took = time.monotonic() - before
    assert took < 0.5 + 0.1 + late.seconds
    hurried(engine, PATIENCE_S)
    assert isinstance(await served(engine), Allow)


async def test_an_answer_without_end_is_unavailable(running: Running) -> None:
    text = HEAD + (
        'decision := {"effect": "allow", "reasons": ["ok"], "grant": {"params": {"p": input.action.args.p}}}\n'
    )
    engine = await running(one(text))
    hurried(engine, 1.0)  # an adapter may wait for the end
    with pytest.raises(PolicyUnavailable):
        await decided(engine, call(args={"p": "x" * 70_000}))
    hurried(engine, PATIENCE_S)
    assert isinstance(await decided(engine, call(args={"p": "x"})), Allow)


async def test_many_at_once_each_get_their_own_answer(running: Running) -> None:
    text = HEAD + (
        'decision := {"effect": "allow", "reasons": ["ok"], "grant": {"params": {"n": input.action.args.n}}}\n'
    )
    engine = await running(one(text))

    async def ask(number: int) -> bool:
        decision = await decided(engine, call(args={"n": number}))
        return isinstance(decision, Allow) and decision.grant.params == {"n": number}

    assert all(await asyncio.gather(*(ask(number) for number in range(200))))


async def test_a_caller_that_goes_away_disturbs_nobody(running: Running) -> None:
    engine = await running(one(ALLOW))
    leaving = [asyncio.ensure_future(engine.evaluate(call())) for _ in range(20)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert all([isinstance(await decided(engine, call()), Allow) for _ in range(20)])


async def test_a_closed_engine_is_unavailable(running: Running) -> None:
    engine = await running(one(ALLOW))
    await engine.close()
    with pytest.raises(PolicyUnavailable):
        await engine.evaluate(call())
