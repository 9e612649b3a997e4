"""Failpoints: on they do what the text says, where and when it says, and say so before they do it."""

from __future__ import annotations

import ast
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import stepgrant
import stepgrant_broker
from stepgrant_broker.testing import start
from stepgrant_broker.wiring.failpoints import POINTS, REPLIES, FailpointHit, ReplyLost, parse

BROKER, SDK = Path(stepgrant_broker.__file__).parent, Path(stepgrant.__file__).parent
ONLY_WHEN_ON = ("breaking.py",)


def test_a_point_raises_at_its_hit_only() -> None:
    points = parse("usecase.before_mint@2=raise, store.before_commit=sleep:1")
    points.hit("usecase.before_mint")
    with pytest.raises(FailpointHit, match="before_mint"):
        points.hit("usecase.before_mint")
    points.hit("usecase.before_mint")
    points.hit("store.after_commit")


def test_a_point_without_a_number_acts_each_time() -> None:
    points = parse("ledger.head=raise")
    for _ in range(3):
        with pytest.raises(FailpointHit):
            points.hit("ledger.head")


def test_a_point_delays() -> None:
    points = parse("ledger.head=sleep:30")
    started = time.monotonic()
    points.hit("ledger.head")
    assert time.monotonic() - started >= 0.03


def test_rules_of_one_point_act_in_their_order() -> None:
    points = parse("ledger.head=sleep:30,ledger.head=raise")
    started = time.monotonic()
    with pytest.raises(FailpointHit):
        points.hit("ledger.head")
    assert time.monotonic() - started >= 0.03


@pytest.mark.parametrize("reply", sorted(REPLIES))
def test_a_lost_reply_is_the_next_one_and_no_other(reply: str) -> None:
    points = parse("store.after_commit@2=lost")
    points.hit("store.after_commit")
    points.hit(reply)
    points.hit("store.after_commit")
    with pytest.raises(ReplyLost):
        points.hit(reply)
    points.hit(reply)


def test_a_point_says_what_it_does_before_it_kills() -> None:
    code = (
        "from stepgrant_broker.wiring.failpoints import parse;"
        "points = parse('ledger.head@2=kill'); points.hit('ledger.head'); points.hit('ledger.head'); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""
    assert json.loads(done.stderr) == {"event": "failpoint", "point": "ledger.head", "action": "kill", "hit": 2}


NOT_ONE = ["ledger.head", "ledger.head=explode", "ledger.head=sleep", "ledger.head@0=kill", "A=kill",
           "ledger.head=kill;start.recovery=kill"]  # fmt: skip


@pytest.mark.parametrize("text", NOT_ONE)
def test_what_is_no_failpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not point=kill"):
        parse(text)


def test_a_point_that_nothing_ever_reaches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there is no failpoint 'store\.before_comit'"):
        parse("store.before_comit=kill")


def test_the_names_are_those_in_the_code() -> None:
    """What a test arms is hit somewhere, and what is hit somewhere can be armed."""
    named = re.compile(r'"((?:api|ledger|start|store|usecase)\.[a-z]+_?[a-z]*)"')
    files = [path for path in BROKER.rglob("*.py") if path.name != "failpoints.py"]
    found = {name for path in files for name in named.findall(path.read_text(encoding="utf-8"))}
    assert found == POINTS


def test_off_a_place_costs_one_test() -> None:
    """Each hit on the way of a call stands behind `is not None`, in the broker and in the SDK."""
    folders = (BROKER / "api", BROKER / "ledger", BROKER / "store", BROKER / "usecases", SDK)
    files = [path for folder in folders for path in folder.rglob("*.py") if path.name not in ONLY_WHEN_ON]
    bare = [f"{path.name}:{line}" for path in files for line in unguarded(path)]
    assert bare == []


def unguarded(path: Path) -> list[int]:
    """The lines of hits that do not stand in an `if ... is not None` of their own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hits = {
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("points.hit")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("is not None"):
            hits -= {inner for body in node.body for inner in ast.walk(body) if isinstance(inner, ast.Call)}
    return [node.lineno for node in hits]


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("api.after_authn=lost", httpx.RemoteProtocolError),
        ("api.before_reply=lost", httpx.RemoteProtocolError),
        ("api.mid_reply=lost", httpx.RemoteProtocolError),
        ("api.mid_reply=raise", httpx.RemoteProtocolError),
    ],
)
def test_an_answer_is_lost_on_its_way(tmp_path: Path, rule: str, error: type[Exception]) -> None:
    """The second call of a person: what it did is done, and its answer does not come, or half of it."""
    point, _, action = rule.partition("=")
    with start(tmp_path / "broker", failpoints=parse(f"{point}@2={action}")) as host:
        token = {"Authorization": f"Bearer {host.operator('Olga')}"}
        with httpx.Client(base_url=host.url, headers=token, trust_env=False) as client:
            first = client.get("/v1/runs")
            assert (first.status_code, first.json()["runs"]) == (200, [])
            with pytest.raises(error):
                client.get("/v1/runs")
            assert client.get("/v1/runs").json()["runs"] == first.json()["runs"]


def test_an_answer_that_breaks_before_it_begins_is_a_failure_of_the_broker(tmp_path: Path) -> None:
    with start(tmp_path / "broker", failpoints=parse("api.before_reply@1=raise")) as host:
        assert httpx.get(f"{host.url}/healthz", trust_env=False).status_code == 500
        assert httpx.get(f"{host.url}/healthz", trust_env=False).status_code == 200
