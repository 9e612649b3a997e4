"""The SDK's README does what it says: its Python blocks, in order, against a real broker and a real service."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

import stepgrant
from shop import Shop, quick
from stepgrant.canonical import dumps
from stepgrant.receipt import DOES_NOT_PROVE
from stepgrant.testing import TestBroker

README = Path(stepgrant.__file__).parent / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def papers(broker: TestBroker, run: str, folder: Path) -> None:
    """What the page says that one takes home: a run's receipt, and the public keys."""
    (folder / "order-1729.receipt.json").write_bytes(dumps(broker.receipt(run)))
    (folder / "keys.json").write_bytes(httpx.get(f"{broker.url}/v1/ledger/keys").content)


@quick
def test_blocks_run(broker: TestBroker, shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools: dict[str, Any] = {**shop.tools(charge="once", pay="once"), "github.create_issue": "once"}
    broker.allow("billing", tools)
    monkeypatch.setenv("STEPGRANT_URL", broker.url)
    monkeypatch.setenv("STEPGRANT_WORKLOAD_KEY", str(broker.key_of("billing")))
    space: dict[str, Any] = {"PSP": shop.url}
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(README.read_text(encoding="utf-8"))
    for number, block in enumerate(blocks):
        if "receipt.json" in block:
            papers(broker, space["run"].id, tmp_path)
        exec(compile(block, f"README.md block {number}", "exec"), space)  # noqa: S102 - it is our own page

    assert len(blocks) == 11
    assert space["receipt"] == {"done": "charge", "invoice": "inv_9", "amount": 4200}
    assert space["issue"] == {"number": 7, "title": "refund", "by": "issue-refund"}
    assert [act[1]["invoice"] for act in shop.acts] == ["inv_9", "inv_10", "inv_1", "inv_2"]

    shop.faults.append("lost")
    assert asyncio.run(space["agent"]()) == {"invoice": "inv_3"}
    assert shop.done("pay") == 1

    assert [gap.code for gap in space["told"].missing] == []
    assert (space["step"].tool, space["step"].grants[0].cause) == ("charge", "completed")
    space["test_charging"](broker)
    assert shop.done("charge") == 5
    assert space["paid"] == {"done": "charge", "invoice": "inv_10", "amount": 4200}
    assert space["ref"].run_key == "bill-inv_10"


def test_the_limits_of_receipts_are_all_on_the_page() -> None:
    page = README.read_text(encoding="utf-8")
    listed = page.partition("No receipt proves:\n\n")[2].partition("\n\n")[0]
    assert listed.splitlines() == [f"* {line}" for line in DOES_NOT_PROVE]
