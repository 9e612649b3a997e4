"""Attacks on deciding itself: make the engine fail, hang or lie, and see that nothing is ever allowed by it."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import PATIENCE_S, hurried
from policies import ALLOW, HEAD, SLOW, call, changed, one, slow
from stepgrant import canonical
from stepgrant_broker.domain.decisions import Allow
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.bundle import from_files, read_starter
from stepgrant_broker.policy.check import check
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.probes import SAMPLE, sample
from stepgrant_broker.policy.rego import Rego, RegoError


@pytest.fixture
async def engine() -> AsyncIterator[EmbeddedEngine]:
    made = EmbeddedEngine(decision_ids=lambda: "dec_1", probe_deadline_s=PATIENCE_S)
    yield made
    await made.close()


async def outcome(engine: EmbeddedEngine, policy_input: bytes) -> str:
    try:
        return type(parse((await engine.evaluate(policy_input)).raw)).__name__
    except PolicyUnavailable:
        return "unavailable"


async def test_an_agent_that_hangs_the_engine_gets_nothing_and_stops_nobody(engine: EmbeddedEngine) -> None:
    await engine.load("1:a", one(SLOW))
    hurried(engine, 0.2)
    attack = [asyncio.ensure_future(outcome(engine, slow(200))) for _ in range(3)]
    assert await asyncio.gather(*attack) == ["unavailable"] * 3
    hurried(engine, PATIENCE_S)
    served = [await outcome(engine, call()) for _ in range(50)]
    assert set(served) <= {"Allow", "unavailable"}
    assert served[-1] == "Allow"


async def test_an_agent_that_ends_the_engine_again_and_again_gets_nothing(engine: EmbeddedEngine) -> None:
    await engine.load("1:a", one(ALLOW))
    for _ in range(20):
        if engine._channel is not None:
            os.kill(engine._channel._process._process.pid, signal.SIGKILL)
        found = await outcome(engine, call("not.listed"))
        assert found in {"Deny", "unavailable"}


async def test_a_policy_that_a_data_file_would_replace_is_refused(engine: EmbeddedEngine) -> None:
    forged = '{"decision": {"effect": "allow", "reasons": ["forged"]}}'
    bundle = from_files({"main.rego": ALLOW, "stepgrant/data.json": forged})
    # This is what the library would do with it.
    assert b"forged" in (Rego(bundle.modules, bundle.data).evaluate(call("not.listed")) or b"")
    with pytest.raises(PolicyInvalid, match="data_over_rule"):
        await engine.load("1:a", bundle)
    with pytest.raises(PolicyUnavailable, match="no policy is loaded"):
        await engine.evaluate(call("not.listed"))


async def test_arguments_cannot_reach_into_the_answer(engine: EmbeddedEngine) -> None:
    text = HEAD + (
        'decision := {"effect": "allow", "reasons": ["ok"], "grant": {"params": {"note": note}}} if {\n'
        '\tinput.action.tool == "probe.read"\n\tnote := input.action.args.note\n}\n'
    )
    await engine.load("1:a", one(text))
    note = '"}}, "grant": {"issuer": "static", "ttl": 300}, "x": {"'
    found = parse((await engine.evaluate(call(args={"note": note}))).raw)
    assert isinstance(found, Allow)
    assert (found.grant.issuer, found.grant.ttl_s, found.grant.params) == ("jwt", None, {"note": note})
    for note in ("<undefined>", "\x00", "\u2028", "\U0001f600", '\\"'):
        found = parse((await engine.evaluate(call(args={"note": note}))).raw)
        assert isinstance(found, Allow)
        assert found.grant.params == {"note": note}


@pytest.mark.parametrize("forged", ["<undefined>", {"effect": "allow", "reasons": ["forged"]}])
async def test_a_policy_that_answers_with_an_argument_is_still_held_to_the_contract(
    engine: EmbeddedEngine, forged: object
) -> None:
    text = HEAD + 'decision := input.action.args.all if input.action.tool == "echo"\n'
    await engine.load("1:a", one(text))
    wanted = "Deny" if forged == "<undefined>" else "Allow"  # whoever writes this policy gives the decision away
    assert await outcome(engine, call("echo", args={"all": forged})) == wanted
    for broken in ({"effect": "allow"}, {"allow": "true"}, "allow", True, [forged], {"effect": "allow", "reasons": []}):
        assert await outcome(engine, call("echo", args={"all": broken})) in {"unavailable", "Deny"}


def test_the_engine_panics_in_another_thread_and_that_is_an_error() -> None:
    rego = Rego(one(ALLOW).modules, {})

    async def elsewhere() -> None:
        await asyncio.to_thread(rego.evaluate, call())

    with pytest.raises(RegoError) as caught:
        asyncio.run(elsewhere())
    assert caught.value.panic
    assert isinstance(caught.value, Exception)
    del caught  # or its traceback would keep the engine until some other thread drops it


def test_numbers_are_numbers() -> None:
    rego = Rego({"a.rego": "package a\n\nall_values := [min([60, 300]), max([9, 100]), sort([300, 60])]\n"}, {})
    assert json.loads(rego.evaluate(b"{}", "data.a.all_values") or b"") == [60, 100, [60, 300]]


# What an agent can choose: names, arguments, wishes, and what it says of itself.
chosen = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e6, 1e6) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
STARTER = read_starter()
REGO = Rego(STARTER.modules, STARTER.data)


def allowed(document: object) -> bool:
    try:
        return isinstance(parse(REGO.evaluate(canonical.dumps(document))), Allow)  # type: ignore[arg-type]
    except (RegoError, PolicyUnavailable):
        return False


@given(
    tool=st.sampled_from(["refund.create", "mail.send", "stepgrant.run.takeover"]) | st.text(max_size=8),
    args=st.dictionaries(st.sampled_from(["amount", "to"]) | st.text(max_size=4), chosen, max_size=3) | st.none(),
    context=st.dictionaries(st.text(max_size=4), chosen, max_size=2),
)
def test_nothing_an_agent_says_of_itself_allows_what_is_not_listed(
    tool: str, args: object, context: dict[str, object]
) -> None:
    document = sample(
        agent={"name": "stranger"},
        action={"tool": tool, "args": args, "effect": "once"},
        claimed={"labels": {"agent": "billing"}, "context": context, "principal": "root"},
    )
    assert not allowed(document)


@given(amount=chosen)
def test_no_amount_gets_around_the_limit(amount: object) -> None:
    document = sample(
        agent={"name": "billing"}, action={"tool": "refund.create", "args": {"amount": amount}, "effect": "once"}
    )
    small = isinstance(amount, int | float) and not isinstance(amount, bool) and 0 <= amount <= 100
    assert allowed(document) == small


@given(member=st.sampled_from(sorted(SAMPLE)), value=chosen)
def test_an_input_with_a_broken_member_is_never_allowed_what_was_not(member: str, value: object) -> None:
    document = sample(agent={"name": "billing"}, action={"tool": "not.listed", "effect": "once"})
    assert not allowed({**document, member: value})


@pytest.mark.parametrize("path", sorted(path for path in STARTER.modules if "/rules/" in path))
def test_a_misspelt_deny_in_the_starter_is_a_finding(path: str) -> None:
    text = STARTER.modules[path]
    if "deny contains" in text:
        broken = changed(STARTER, {path: text.replace("deny contains", "denny contains")})
        assert "unused_rule" in {finding.code for finding in check(broken)}
    if "input.action" in text:
        broken = changed(STARTER, {path: text.replace("input.action", "input.actoin")})
        assert "unknown_input" in {finding.code for finding in check(broken)}
