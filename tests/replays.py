"""An agent whose decisions are made again, and policies that would decide otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import stepgrant
from clerks import SETTINGS
from stepgrant import canonical
from stepgrant_broker.policy.bundle import read_starter


@stepgrant.tool(effect="read", name="book.read")
def read_book(title: str) -> str:
    """A tool that policy lets read."""
    return f"{title}, page one"


@stepgrant.tool(effect="once", name="file.publish", step_id="publish", resource="web/{name}")
def publish(name: str) -> str:
    """A tool about which policy asks a person."""
    return f"https://web.example/{name}"


def work(key: str) -> str:
    """One try of the agent, as a process of its own would make it."""
    with stepgrant.run(key, agent="clerk"):
        read_book.with_id("book")("Emma")
        return publish("emma")


def asked(key: str = "order-1") -> str:
    """A run that read, asked a person, and was parked for the answer; the question's id."""
    with pytest.raises(stepgrant.ApprovalRequired) as needed:
        work(key)
    return str(needed.value.approval_id)


def ask_no_more() -> dict[str, Any]:
    """Settings in which publishing needs nobody's word."""
    tools = {**SETTINGS["agents"]["clerk"]["tools"], "file.publish": {"effect": "once"}}
    return {**SETTINGS, "agents": {"clerk": {"tools": tools}}}


def folder(tmp_path: Path, settings: dict[str, Any]) -> str:
    """A policy's folder: the starter policy with these settings."""
    for name, text in read_starter(canonical.dumps(settings)).files.items():
        path = tmp_path / "candidate" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(tmp_path / "candidate")
