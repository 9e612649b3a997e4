"""A broker for the tests of frameworks that stay in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepgrant.testing import TestBroker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TestBroker]:
    made = TestBroker(tmp_path / "broker")
    made.allow("billing", {"pay": "once", "look": "read", "plain": "once", "ask": {"effect": "once", "ask": True}})
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def means(broker: TestBroker) -> dict[str, Any]:
    return {"agent": "billing", "url": broker.url, "workload_key": broker.key_of("billing")}
