"""LangGraph's traps over several processes: pauses side by side, stray answers, edits, time travel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integrations.harness import Nursed, nursery
from integrations.test_langgraph_suite import IMPORTS
from stepgrant.testing import Asked, Lived
from stepgrant.testing._adapter_world import World, world_for

pytestmark = pytest.mark.timeout(240)

everywhere = pytest.mark.parametrize(("face", "shape"), [("sync", "agent"), ("async", "node")])
FACES = pytest.mark.parametrize("face", ["sync", "async"])


@dataclass
class Stage:
    """A world whose program is one trap."""

    world: World

    def life(self, *turns: Any, **play: Any) -> dict[str, Any]:  # noqa: ANN401 - those of `Play`
        """One life; what the graph waits for, or gave."""
        lived = self.world.begin(*turns, **play) if turns else self.world.resume(**play)
        return said(lived)


def said(lived: Lived) -> dict[str, Any]:
    assert "ended" in lived.last, lived.output + lived.errors
    return dict(json.loads(lived.last["ended"]))


@pytest.fixture(scope="module")
def started() -> Iterator[subprocess.Popen[str]]:
    with nursery(*IMPORTS) as process:
        yield process


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, face: str, shape: str, started: subprocess.Popen[str], tmp_path: Path
) -> Iterator[Stage]:
    trap = str(request.function.__name__).removeprefix("test_").partition("_")[0]
    lives = tmp_path / "lives"
    lives.mkdir()
    harness = Nursed(
        f"langgraph-{trap}", edits=False, tells_errors=False, program="integrations.langgraph_traps",
        words=[trap, face, shape], nursery=started, folder=lives,
    )  # fmt: skip
    with world_for(harness, tmp_path) as world:
        yield Stage(world)


@everywhere
def test_answers_to_our_pause_are_no_answers_to_a_tools_question(stage: Stage) -> None:
    """The person who approved said "yes"; the tool asks "how many?" and must not hear that, now or later."""
    waits = stage.life([Asked("order", {"item": "a"}, "c1")])["waits"]
    assert [one["stepgrant"] for one in waits] == ["approval_required"]
    stage.world.answer("approve")
    assert stage.life(verdict="yes")["waits"] == ["how many?"]
    assert stage.life(verdict="go on")["waits"] == ["how many?"]
    assert json.loads(stage.life(verdict="three")["gave"][0]) == {"item": "a", "many": "three"}


@everywhere
def test_suspended_tool_is_neither_failed_nor_in_doubt(stage: Stage) -> None:
    """A question inside a guarded tool passes through it; its sibling is not done again when the task runs again."""
    both = [Asked("send", {"text": "a"}, "c1"), Asked("order", {"item": "b"}, "c2")]
    stage.life(both)
    stage.world.answer("approve")
    assert stage.life(verdict="go on")["waits"] == ["how many?"]
    assert len(stage.world.entries("step_suspended")) == 1
    assert not stage.world.entries("step_in_doubt")
    assert not stage.world.entries("step_failed")
    gave = stage.life(verdict="three")["gave"]
    assert [json.loads(one) for one in gave] == [{"done": "send", "text": "a"}, {"item": "b", "many": "three"}]
    stage.world.did("send", 1)


@FACES
@pytest.mark.parametrize("shape", ["agent"])
def test_several_pauses_are_resumed_by_their_ids(stage: Stage) -> None:
    """What is said to our pauses by id is read by nobody, either."""
    waits = stage.life([Asked("order", {"item": "a"}, "c1"), Asked("order", {"item": "b"}, "c2")])["waits"]
    assert sorted(one["call"] for one in waits) == ["c1", "c2"]
    for one in waits:
        stage.world.broker.approve(one["approval_id"])
    assert stage.life(verdict="ids")["waits"] == ["how many?", "how many?"]
    gave = stage.life(verdict="ids")["gave"]
    assert [json.loads(one)["many"] for one in gave] == ["three", "three"]


@FACES
@pytest.mark.parametrize("shape", ["agent"])
def test_edit_by_a_person_is_what_is_decided_on(stage: Stage) -> None:
    """The AIMessage shows other arguments than run: the grant, and so the target, know those that run."""
    assert stage.life([Asked("send", {"text": "a"}, "c1")])["waits"]
    decision = {"type": "edit", "edited_action": {"name": "send", "args": {"text": "edited"}}}
    stage.life(verdict=json.dumps({"decisions": [decision]}))
    assert [dict(act.args) for act in stage.world.target.acts] == [{"text": "edited"}]
    stage.world.did("send", 1)


@everywhere
def test_travel_in_time_gives_what_was_recorded(stage: Stage) -> None:
    """An old checkpoint calls again under its old ids: recorded results, and only a fork does the effects anew."""
    first = stage.life([Asked("send", {"text": "a"}, "c1")])["gave"]
    assert stage.life(verdict="go on")["gave"] == first
    stage.world.did("send", 1)
    assert stage.life(verdict="again")["gave"] == first
    stage.world.did("send", 2)
    assert len({act.key for act in stage.world.target.acts}) == 2
