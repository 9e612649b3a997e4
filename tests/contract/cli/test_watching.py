"""`stepgrant approval watch` as a process of its own beside the real broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from signal import SIGINT

import pytest

import stepgrant
from commandline import Done
from processes import started
from stepgrant.cli.exits import ExitCode

Run = Callable[..., Done]


@stepgrant.tool(effect="once", name="file.publish", step_id="publish", resource="web/{name}")
def publish(name: str) -> str:
    return f"https://web.example/{name}"


def asked(key: str) -> str:
    """A question that a run of this key puts."""
    with pytest.raises(stepgrant.ApprovalRequired) as needed, stepgrant.run(key, agent="clerk"):
        publish("emma")
    return str(needed.value.approval_id)


def test_questions_are_watched_until_ctrl_c(run: Run, root: list[str], tmp_path: Path) -> None:
    first = asked("order-1")
    with started(tmp_path, tmp_path / "watch.log", "approval", "watch", "--every", "0.5", *root) as watching:
        watching.wait_for("watching for questions")
        second = asked("order-2")
        watching.wait_for(f"stepgrant approval approve {second}, or deny")
        watching.process.send_signal(SIGINT)
        assert watching.ended() == ExitCode.OK
        printed = watching.text
    assert [printed.count(f"approve {one}, or deny") for one in (first, second)] == [1, 1]
    assert ("clerk, order-2" in printed, "Traceback" in printed) == (True, False)
    listed = run("approval", "list", *root).out
    for words in ("clerk", "order-1", 'file.publish on web/emma {"name": "emma"}', "tool_needs_approval"):
        assert words in listed
