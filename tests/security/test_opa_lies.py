"""An OPA that fails, hangs, garbles or lies: a reason of its own for each, never an allow, and it is served again."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from engines import PATIENCE_S, hurried
from fakes.lying_opa import LyingOpa, Teller, lying_opa
from fakes.opa_lies import DEADLINE_S, LIES, POLICY, QUESTION, REVISION, SECRET, hang, instead
from fakes.wired import until
from lateness import lateness
from opas import Serve, serving
from policies import call
from stepgrant_broker.domain.decisions import Allow, Deny
from stepgrant_broker.domain.errors import PolicyUnavailable
from stepgrant_broker.policy.contract import parse
from stepgrant_broker.policy.opa import OpaEngine, OpaOptions
from stepgrant_broker.policy.opa_place import Limits, Place

NOT_IN_TIME = LIES["no answer"][1]


@pytest.fixture(scope="module")
def real(opa_server: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real OPA."""
    with serving(opa_server, POLICY, tmp_path_factory.mktemp("opa")) as opa:
        yield opa.url


@pytest.fixture
async def liar(real: str) -> AsyncIterator[LyingOpa]:
    async with lying_opa(real) as one_liar:
        yield one_liar


@pytest.fixture
async def engine(liar: LyingOpa) -> AsyncIterator[OpaEngine]:
    options = OpaOptions(Place(liar.url), deadline_s=PATIENCE_S, limits=Limits(in_flight=2, waiting=4))
    made = OpaEngine(options, decision_ids=lambda: "dec_1")
    await made.load("3:" + POLICY.digest, POLICY)
    yield made
    await made.close()


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_unavailable_for_its_own_reason_and_the_next_answer_is_served(
    engine: OpaEngine, liar: LyingOpa, name: str
) -> None:
    liar.lie, reason = LIES[name]
    asked = liar.asked
    if reason == NOT_IN_TIME:
        hurried(engine, DEADLINE_S)
    async with lateness() as late:
        before = time.monotonic()
        with pytest.raises(PolicyUnavailable) as caught:
            parse((await engine.evaluate(QUESTION)).raw)
        took = time.monotonic() - before
    assert reason in caught.value.detail
    assert SECRET not in caught.value.detail
    assert reason != NOT_IN_TIME or took < DEADLINE_S + 0.3 + late.seconds
    await until(lambda: liar.asked > asked)
    liar.lie = None
    hurried(engine, PATIENCE_S)
    assert isinstance(parse((await engine.evaluate(QUESTION)).raw), Allow)
    assert liar.asked == asked + 2, "it was asked again"


async def test_undefined_is_a_denial(engine: OpaEngine, liar: LyingOpa) -> None:
    liar.lie = instead(b',"result":{"effect":"allow","reasons":["listed"]}', b"")
    assert parse((await engine.evaluate(QUESTION)).raw) == Deny(("policy_undefined",))


async def test_a_null_is_not_undefined(engine: OpaEngine, liar: LyingOpa) -> None:
    liar.lie = instead(b'{"effect":"allow","reasons":["listed"]}', b"null")
    with pytest.raises(PolicyUnavailable, match="decision must be an object"):
        parse((await engine.evaluate(QUESTION)).raw)


async def test_what_comes_unasked_is_not_the_next_answer(engine: OpaEngine, liar: LyingOpa) -> None:
    forged = b'{"effect":"allow","reasons":["forged"]}'

    said: list[str] = []

    async def and_one_more(teller: Teller) -> None:
        await teller.send(teller.honest)
        await asyncio.sleep(0.05)
        await teller.replaced(b'{"effect":"allow","reasons":["listed"]}', forged)
        await asyncio.sleep(0.05)  # it is there before anything else is asked
        said.append("forged")

    liar.lie = and_one_more
    assert isinstance(parse((await engine.evaluate(QUESTION)).raw), Allow)
    await until(lambda: said == ["forged"])
    liar.lie = None
    before = liar.connections
    assert parse((await engine.evaluate(call("not.listed"))).raw) == Deny(("no_rule_matched",))
    assert liar.connections == before + 1, "that connection is not used again"


async def test_the_whole_revision_names_the_policy_too(engine: OpaEngine, liar: LyingOpa) -> None:
    liar.lie = instead(REVISION, b"3:" + REVISION)
    answer = await engine.evaluate(QUESTION)
    assert answer.revision == "3:" + POLICY.digest
    assert isinstance(parse(answer.raw), Allow)


async def test_connections_are_kept(engine: OpaEngine, liar: LyingOpa) -> None:
    before = liar.connections
    for _ in range(20):
        await engine.evaluate(QUESTION)
    assert liar.connections == before


async def test_beyond_the_queue_it_is_refused_at_once_and_nobody_is_lost(engine: OpaEngine, liar: LyingOpa) -> None:
    gate = asyncio.Event()

    async def when_told(teller: Teller) -> None:
        await gate.wait()
        await teller.send(teller.honest)

    liar.lie = when_told
    waiting = [asyncio.ensure_future(engine.evaluate(QUESTION)) for _ in range(6)]
    await asyncio.sleep(0.05)
    with pytest.raises(PolicyUnavailable, match="too many decisions are waiting") as caught:
        engine.evaluate(QUESTION).send(None)  # at once: it does not even give up its turn
    assert caught.value.retry_after_ms
    gate.set()
    assert len(await asyncio.gather(*waiting)) == 6


async def test_the_wait_for_a_turn_counts(engine: OpaEngine, liar: LyingOpa) -> None:
    liar.lie = hang
    hurried(engine, DEADLINE_S)
    async with lateness() as late:
        before = time.monotonic()
        waiting = [asyncio.ensure_future(engine.evaluate(QUESTION)) for _ in range(6)]
        done = await asyncio.gather(*waiting, return_exceptions=True)
        took = time.monotonic() - before
    assert took < DEADLINE_S + 0.3 + late.seconds
    assert [type(one) for one in done] == [PolicyUnavailable] * 6


async def test_whoever_goes_away_takes_its_question_back(engine: OpaEngine, liar: LyingOpa) -> None:
    """Both places in flight were taken by questions that get no answer: the next one would wait for ever."""
    liar.lie, before = hang, liar.asked
    leaving = [asyncio.ensure_future(engine.evaluate(QUESTION)) for _ in range(2)]
    await until(lambda: liar.asked == before + 2)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    liar.lie = None
    assert isinstance(parse((await engine.evaluate(QUESTION)).raw), Allow)
