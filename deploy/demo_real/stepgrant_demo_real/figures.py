"""What is counted and timed: a grant of Vault as the agent waits for it, and Vault's own part by its audit log."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from stepgrant_broker.policy.bundle import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepgrant_demo_real.stage import RealStage
    from stepgrant_demo_real.story import Story

TIMES: Final = 20
METER_S: Final = 60.0
METER: Final = "meter"
QUESTIONS: Final = "http_request_duration_seconds_count"


def measure(story: Story) -> None:
    """A run of its own with `TIMES` grants, one after another, on an otherwise quiet broker."""
    stage = story.stage
    meter = stage.start_agent("meter", "meter", str(TIMES), run_key=METER)
    code = meter.wait_end(METER_S)
    taken = [float(line.split()[2]) for line in meter.said if line.startswith("granted ")]
    own = vaults_own_ms(stage.audit_file, "look:")
    told = f"{len(taken)} measured, {len(own)} in Vault's audit log, exit code {code}; {meter.last_words()}"
    held = code == 0 and len(taken) == TIMES <= len(own)
    if held:
        ours, vault = statistics.median(taken), statistics.median(own)
        told = (
            f"p50 {ours:.1f} ms from call to login; Vault's own part of it {vault:.1f} ms, all else {ours - vault:.1f}"
        )
    story.checks.check(f"{TIMES} grants one after another", held, told)


def vaults_own_ms(audit: Path, steps: str) -> list[float]:
    """For each grant of a step that begins so: how long Vault was at its token and its login, by its audit log."""
    began: dict[str, datetime] = {}
    spent: dict[str, float] = defaultdict(float)
    for line in audit.read_text(encoding="utf-8").splitlines():
        entry: dict[str, Any] = json.loads(line)
        request = entry["request"]
        at = datetime.fromisoformat(entry["time"])
        if entry["type"] == "request":
            began[request["id"]] = at
            continue
        made = entry.get("response", {}).get("auth", {}).get("metadata")
        used = entry.get("auth", {}).get("metadata")
        grant = made or used or {}
        if str(grant.get("step", "")).startswith(steps) and request["id"] in began:
            spent[grant["jti"]] += (at - began[request["id"]]).total_seconds() * 1000
    return list(spent.values())


def decisions_of_opa(stage: RealStage) -> int:
    """How many questions OPA has answered, by its own count."""
    text = httpx.get(f"{stage.opa.url}/metrics", trust_env=False).text
    counted = [
        line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(QUESTIONS) and "v1/data" in line
    ]
    return int(sum(map(float, counted)))


def roles_in_policy(stage: RealStage) -> Mapping[str, tuple[str, str]]:
    """Which issuer and role the policy's settings name for each tool."""
    settings = json.loads((stage.folder / "policy" / SETTINGS).read_text(encoding="utf-8"))
    tools = settings["agents"][stage.agent]["tools"]
    return {tool: (said["issuer"], said["params"]["role"]) for tool, said in tools.items()}
