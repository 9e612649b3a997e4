"""`stepgrant decision replay` over the real broker: decisions are made again, and what was changed is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import stepgrant
from commandline import Done

Run = Callable[..., Done]
REPLAY = ("decision", "replay", "--json")


@stepgrant.tool(effect="read", name="book.read")
def read_book(title: str) -> str:
    return f"{title}, page one"


@stepgrant.tool(effect="once", name="file.publish", step_id="publish", resource="web/{name}")
def publish(name: str) -> str:
    return f"https://web.example/{name}"


def work(key: str) -> str:
    with stepgrant.run(key, agent="clerk"):
        read_book.with_id("book")("Emma")
        return publish("emma")


def approved(run: Run, root: list[str], key: str = "order-1") -> None:
    """A run that asked a person, was parked, resumed and allowed."""
    with pytest.raises(stepgrant.ApprovalRequired) as needed:
        work(key)
    assert run("approval", "approve", str(needed.value.approval_id), "--yes", *root).code == 0
    work(key)


def test_every_decision_of_a_run_comes_out_as_recorded(run: Run, root: list[str]) -> None:
    approved(run, root)
    done = run(*REPLAY, "--run", "order-1", *root)
    assert done.code == 0
    value = done.json
    assert (value["holds"], value["findings"], value["decisions"], value["equal"]) == (True, [], 5, 5)
    assert value["engine_assumed"] == 2
