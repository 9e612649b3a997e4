"""One timer for the deadlines of all queries."""

import asyncio

from stepgrant_broker.policy.channel import Deadlines, Query
from stepgrant_broker.policy.engine_process import Answer


def query(deadline_s: float, deadlines: Deadlines) -> Query:
    loop = asyncio.get_running_loop()
    made = Query(b"{}", deadline_s, loop)
    deadlines.watch(made, loop)
    return made


async def test_a_shorter_deadline_does_not_wait_for_a_longer_one_before_it() -> None:
    deadlines = Deadlines()
    longer, shorter = query(600, deadlines), query(0.05, deadlines)
    assert "no decision within 0.05 s" in ((await asyncio.wait_for(shorter.answered, 60)).error or "")
    assert not longer.answered.done()
    deadlines.stop()


async def test_each_query_expires_by_itself_and_an_answered_one_keeps_its_answer() -> None:
    deadlines = Deadlines()
    first, answered, last = (query(seconds, deadlines) for seconds in (0.05, 0.06, 0.2))
    answered.answer(Answer("1:test", raw=b"{}"))
    assert (await asyncio.wait_for(first.answered, 60)).error
    assert (await asyncio.wait_for(last.answered, 60)).error
    assert (await answered.answered).raw == b"{}"


async def test_what_was_answered_is_not_kept_until_its_deadline() -> None:
    deadlines = Deadlines()
    for _ in range(50):
        query(600, deadlines).answer(Answer("1:test", raw=b"{}"))
    open_one = query(600, deadlines)
    assert list(deadlines._queries) == [open_one]
    deadlines.stop()
    assert not deadlines._queries
