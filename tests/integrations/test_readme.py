"""The README of the integrations does what it says: its Python blocks, in order, against a real broker and service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import stepgrant.integrations
from integrations.langgraph_script import Scripted
from shop import shop_for
from stepgrant.testing import TestBroker

README = Path(stepgrant.integrations.__file__).parent / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_blocks_run(broker: TestBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPGRANT_URL", broker.url)
    monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(broker.key_of("billing")))
    model = Scripted([("charge", {"invoice": "inv_9", "amount": 4200}, "call-1")])
    with shop_for(broker) as shop:
        broker.allow("billing", {"charge": {"effect": "once", "ask": True, "audience": shop.url}})
        space: dict[str, Any] = {"PSP": shop.url, "MODEL": model, "FILE": str(tmp_path / "saved.sqlite")}
        blocks = BLOCK.findall(README.read_text(encoding="utf-8"))
        for number, block in enumerate(blocks):
            exec(compile(block, f"README.md block {number}", "exec"), space)  # noqa: S102 - it is our own page

        assert len(blocks) == 2
        waits = space["first"]["__interrupt__"][0].value
        assert waits["stepgrant"] == "approval_required"
        assert shop.acts == []
        broker.approve(waits["approval_id"])
        space["go_on"]()
        assert [act[1] for act in shop.acts] == [{"invoice": "inv_9", "amount": 4200}]
        space["saver"].conn.close()
