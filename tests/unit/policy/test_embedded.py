"""The embedded engine beyond its port: what is loaded, and that a reload is whole or nothing."""

import asyncio

import pytest
import uvloop

from engines import PATIENCE_S, Make, decided, pid_of, served, until_gone
from policies import ALLOW, HEAD, SLOW, call, one, slow
from stepgrant_broker.domain.decisions import Allow, GrantSpec
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.embedded import EmbeddedEngine
from stepgrant_broker.policy.findings import PolicyInvalid
from stepgrant_broker.policy.rego import ENGINE

OTHER = ALLOW.replace("listed", "other_rule")


async def test_nothing_is_decided_before_a_policy_is_loaded(make: Make) -> None:
    engine = await make()
    assert engine.revision is None
    with pytest.raises(PolicyUnavailable, match="no policy is loaded"):
        await engine.evaluate(call())


async def test_a_decision_names_its_engine_and_version(make: Make) -> None:
    engine = await make(one(ALLOW))
    assert (await engine.evaluate(call())).engine == ENGINE
    assert ENGINE.startswith("regorus/0.")


async def test_a_reload_decides_by_the_new_policy_and_ends_the_old_process(make: Make) -> None:
    engine = await make(one(ALLOW), "1:a")
    old = pid_of(engine)
    await engine.load("2:b", one(OTHER))
    answer = await engine.evaluate(call())
    assert (answer.revision, engine.revision) == ("2:b", "2:b")
    assert parse(answer.raw).reasons == ("other_rule",)
    await until_gone(old)


async def test_the_same_policy_may_be_loaded_twice(make: Make) -> None:
    engine = await make(one(ALLOW), "1:a")
    await engine.load("1:a", one(ALLOW))
    assert isinstance(await decided(engine), Allow)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ALLOW + "deny if {\n", "does_not_compile"),
        (ALLOW.replace("input.action.tool", "input.action.toool"), "unknown_input"),
        (ALLOW + "\nother if http.send({})\n", "builtin_refused"),
        (HEAD + 'decision := {"effect": "allow", "reasons": []} if input.tenant\n', "outside_contract"),
        (HEAD + 'decision := {"effect": "allow", "reasons": ["x"]}\n', "allows_nothing"),
        (HEAD + 'decision := {"allow": "true"} if input.tenant\n', "outside_contract"),
        (ALLOW.replace('input.action.tool == "probe.read"', "input.run.step_count + input.tenant"), "probe_failed"),
    ],
)
async def test_a_broken_edit_keeps_the_last_good_policy_and_says_where(make: Make, text: str, code: str) -> None:
    engine = await make(one(ALLOW), "1:a")
    process = pid_of(engine)
    with pytest.raises(PolicyInvalid) as caught:
        await engine.load("2:b", one(text))
    assert code in {finding.code for finding in caught.value.findings}
    assert (engine.revision, pid_of(engine)) == ("1:a", process)
    assert await decided(engine) == Allow(("listed",), GrantSpec())


async def test_a_policy_that_is_too_slow_is_not_loaded(make: Make) -> None:
    loops = "; ".join(f"some {name} in xs" for name in "abcdefgh")
    text = ALLOW.replace('input.action.tool == "probe.read"', f"{{\n\tinput.tenant\n\tcount([1 | {loops}]) > 0\n}}")
    engine = await make(one(ALLOW), "1:a")
    engine._probe_deadline_s = 0.2
    with pytest.raises(PolicyInvalid, match=r"probe_failed: no decision within 0\.2 s"):
        await engine.load("2:b", one(text + "\nxs := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n"))
    assert engine.revision == "1:a"


async def test_a_reload_under_load_answers_everybody(make: Make) -> None:
    engine = await make(one(ALLOW), "1:a")
    seen: set[tuple[str, str]] = set()

    async def ask() -> None:
        for _ in range(50):
            answer = await engine.evaluate(call())
            seen.add((answer.revision, parse(answer.raw).reasons[0]))

    asking = [asyncio.ensure_future(ask()) for _ in range(8)]
    await engine.load("2:b", one(OTHER))
    await asyncio.gather(*asking)
    await ask()
    assert seen == {("1:a", "listed"), ("2:b", "other_rule")}


async def test_two_reloads_at_once_end_in_one_of_them_whole(make: Make) -> None:
    engine = await make()
    await asyncio.gather(engine.load("1:a", one(ALLOW)), engine.load("2:b", one(OTHER)))
    answer = await engine.evaluate(call())
    assert (engine.revision, answer.revision, parse(answer.raw).reasons) == ("2:b", "2:b", ("other_rule",))


def test_it_runs_on_uvloop_too() -> None:
    async def use() -> None:
        engine = EmbeddedEngine(decision_ids=lambda: "dec_1", deadline_s=PATIENCE_S, probe_deadline_s=PATIENCE_S)
        await engine.load("1:a", one(SLOW))
        assert isinstance(await decided(engine), Allow)
        engine._deadline_s = 0.3
        with pytest.raises(PolicyUnavailable, match="no decision within"):
            await engine.evaluate(slow(300))
        engine._deadline_s = PATIENCE_S
        assert isinstance(await served(engine), Allow)
        await engine.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())
