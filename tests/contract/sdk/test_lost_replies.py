"""The broker commits, and its answer is lost: the SDK asks again, and nothing is granted or done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents import tool_of
from faces import Face, faces
from shop import Shop, shop_for
from stepgrant.testing import TestBroker


class LosesReplies:
    """Fails where it is told to, once each, after the commit: the caller sees a 500 and knows nothing."""

    def __init__(self) -> None:
        self.points: list[str] = []

    def hit(self, point: str) -> None:
        if self.points and self.points[0] == point:
            self.points.pop(0)
            raise OSError("the reply is lost")


@faces
@pytest.mark.parametrize("point", ["usecase.after_commit", "usecase.before_mint", "usecase.after_mint"])
async def test_lost_reply_to_begin(face: Face, tmp_path: Path, point: str) -> None:
    failing = LosesReplies()
    broker = TestBroker(tmp_path / "broker", failpoints=failing)
    try:
        with shop_for(broker) as shop:
            await _charged(face, broker, shop, failing, point)
    finally:
        broker.close()


async def _charged(face: Face, broker: TestBroker, shop: Shop, failing: LosesReplies, point: str) -> None:
    broker.allow("agent", shop.tools(charge="once"))
    tool = tool_of(face, shop, "charge")
    async with face.run("order", agent="agent", url=broker.url, workload_key=broker.key_of("agent")) as held:
        failing.points.append(point)
        assert (await face.call(tool, "991"))["order"] == "991"

    assert failing.points == []
    assert shop.done("charge") == 1
    entries = broker.entries(held.id)
    grants: list[Any] = [entry.part("grant")["jti"] for entry in entries if entry.type == "grant_issued"]
    assert len(grants) == 2
    assert {entry.attempt for entry in entries if entry.type == "grant_issued"} == {1}
    redeemed = [entry.part("grant")["jti"] for entry in entries if entry.type == "grant_redeemed"]
    assert redeemed == grants[1:]


@faces
async def test_lost_replies_to_everything(face: Face, tmp_path: Path) -> None:
    """Each call of a whole run loses its reply once, after the commit."""
    failing = LosesReplies()
    broker = TestBroker(tmp_path / "broker", failpoints=failing)
    try:
        broker.allow("agent", {"charge": "once"})
        at: dict[str, Any] = {"agent": "agent", "url": broker.url, "workload_key": broker.key_of("agent")}
        ran = []
        tool = face.tool(lambda: ran.append(1), name="charge")
        failing.points.extend(["usecase.after_commit"])
        async with face.run("order", **at) as held:
            assert (held.epoch, held.resumed) == (1, False)
            failing.points.append("usecase.after_commit")
            assert await face.step("plan", lambda: [1]) == [1]
            failing.points.append("usecase.after_commit")
            await face.call(tool)
            failing.points.append("usecase.after_commit")
        assert failing.points == []
        types = [entry.type for entry in broker.entries(held.id)]
    finally:
        broker.close()

    assert ran == [1]
    assert [types.count(one) for one in ("run_opened", "run_resumed", "step_recorded", "step_completed")] == [
        1, 0, 1, 1
    ]  # fmt: skip
    assert types[-1] == "run_ended"
