"""A rehearsal of one of `tests/rehearse_agents`, in this process: everything but the command line."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepgrant_broker.commands.rehearse.lives import Lives
from stepgrant_broker.commands.rehearse.performing import Order
from stepgrant_broker.commands.rehearse.policies import read_policy
from stepgrant_broker.commands.rehearse.report import Report
from stepgrant_broker.commands.rehearse.session import Progress, Session, Wanted
from stepgrant_broker.policy.bundle import SETTINGS, starter_files

AGENTS = Path(__file__).parents[1] / "rehearse_agents"
LONG_S = 60.0
"""A busy machine must not look like an agent that hangs, or that waits for a person's answer."""
NAMES = ("billing", "mailer")
"""What the agents call themselves. Who is not told it learns it from a life that is refused."""


def environment(**more: str) -> dict[str, str]:
    """An author's, with nothing of Stepgrant in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPGRANT_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(name for name in sys.path if name), **more}


def rehearsed(
    tmp_path: Path,
    agent: str,
    *,
    tools: Mapping[str, Any] | None = None,
    timeout_s: float = LONG_S,
    words: tuple[str, ...] = (),
    names: tuple[str, ...] = NAMES,
    **wanted: Any,  # noqa: ANN401 - fields of Wanted
) -> Report:
    """Rehearse `<kind>/<name>.py` in a folder of its own; with `tools`, under the starter policy with these."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(AGENTS / f"{agent}.py", folder / "agent.py")
    policy = (
        None if tools is None else starter_policy(tmp_path / "policy", {name: {"tools": dict(tools)} for name in NAMES})
    )
    rules = read_policy(policy)
    order = Order(
        words=[sys.executable, "agent.py", *words],
        folder=folder,
        environment=environment(),
        policy=rules,
        agents=rules.agents or names,
        timeout_s=timeout_s,
        patient_s=LONG_S,
        ttl_s=2,
    )
    with Lives() as lives:
        session = Session(order, Wanted(**{"quick": True, **wanted}), lives, Progress())
        try:
            return session.run()
        finally:
            session.close()


def starter_policy(folder: Path, agents: Mapping[str, Any]) -> Path:
    """The starter policy in a folder, for these agents."""
    for path, data in starter_files().items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    settings = json.loads((folder / SETTINGS).read_bytes()) | {"agents": dict(agents)}
    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    return folder
