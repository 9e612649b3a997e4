"""Repeated and concurrent calls: Idempotency-Keys, lost replies, retries."""

import asyncio

import pytest

from changing import replace
from fakes.hand import Hand, allow, deciding, with_limits
from fakes.world import call
from stepgrant_broker.domain.caller import Request
from stepgrant_broker.domain.errors import (
    DuplicateRequest,
    InvalidRequest,
    RetriesExhausted,
)
from stepgrant_broker.domain.writes import Query
from stepgrant_broker.usecases.prepare import prepare
from stepgrant_broker.usecases.transact import answered_before, scope_of


async def test_one_key_with_another_body_is_a_duplicate(broker: Hand) -> None:
    run = (await broker.open())["run"]
    await broker.begin(run, request=broker.request({"a": 1}, "same"))
    with pytest.raises(DuplicateRequest):
        await broker.begin(run, request=broker.request({"a": 2}, "same"))


async def test_a_lost_reply_of_begin_revokes_the_first_and_mints_another(broker: Hand) -> None:
    run = (await broker.open())["run"]
    request = broker.request({"a": 1}, "same")
    first = await broker.begin(run, request=request)
    second = await broker.begin(run, request=request)
    assert first["grant"]["jti"] != second["grant"]["jti"]
    assert second["attempt"] == 1
    assert (await broker.entries(run))[-4:] == ["grant_issued", "grant_revoked", "decision", "grant_issued"]


async def test_a_lost_reply_of_prepare_gives_the_same_answer_without_a_new_entry(broker: Hand) -> None:
    run = (await broker.open())["run"]
    request = broker.request({"a": 1}, "same")
    what = call(**deciding(allow()))
    first = await prepare(broker.ports, broker.agent(), run, what, request)
    before = await broker.entries(run)
    assert await prepare(broker.ports, broker.agent(), run, what, request) == first
    assert await broker.entries(run) == before


async def test_a_stored_answer_ages_out(broker: Hand) -> None:
    run = (await broker.open())["run"]
    request = broker.request({"a": 1}, "same")
    broker.ports = with_limits(broker.ports, answer_kept_ms=10)
    what = call(**deciding(allow()))
    await prepare(broker.ports, broker.agent(), run, what, request)
    broker.clock.tick(11)
    before = len(await broker.entries(run))
    await prepare(broker.ports, broker.agent(), run, what, Request("same", b"other"))
    assert len(await broker.entries(run)) == before + 1


async def test_a_stored_answer_that_is_none_is_not_taken_for_one(broker: Hand) -> None:
    """Nor is it taken for a call that was never made: that would do it once more."""
    run = (await broker.open())["run"]
    request, what = broker.request(), call(**deciding(allow()))
    await prepare(broker.ports, broker.agent(), run, what, request)
    scope = scope_of("acme", "k1", "prepare", f"{run}/s1", 1, request.idempotency_key)
    loaded = await broker.store.load(Query("acme", run=run, step="s1", answer=scope))
    assert loaded.answer is not None
    assert answered_before(broker.ports, loaded, request) is not None
    name = str(loaded.answer.answer_c)
    spoiled = replace(loaded, payloads={name: replace(loaded.payloads[name], body=b'["run"]')})
    with pytest.raises(DuplicateRequest, match="not readable") as refused:
        answered_before(broker.ports, spoiled, request)
    assert refused.value.field == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb"])
def test_an_idempotency_key_is_short_and_printable(key: str) -> None:
    with pytest.raises(InvalidRequest) as bad:
        scope_of("t", "c", "begin", "r", 1, key)
    assert bad.value.field == "Idempotency-Key"


async def test_many_callers_of_one_run_all_get_through(broker: Hand) -> None:
    run = (await broker.open())["run"]
    broker.ports = with_limits(broker.ports, max_tries=64)
    answers = await asyncio.gather(*(broker.begin(run, f"s{n}") for n in range(12)))
    assert {answer["outcome"] for answer in answers} == {"run"}
    assert (await broker.entries(run)).count("grant_issued") == 12


async def test_tries_are_bounded(broker: Hand) -> None:
    run = (await broker.open())["run"]
    broker.ports = with_limits(broker.ports, max_tries=0)
    with pytest.raises(RetriesExhausted):
        await broker.begin(run)
