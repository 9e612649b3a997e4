"""The adapter suite on LangGraph: sync and async, `create_agent` and `ToolNode`; each life is a new process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.forker import SDK
from integrations.harness import Nursed, nursery
from stepgrant.testing import Case, adapter_suite

pytestmark = pytest.mark.timeout(240)

IMPORTS = (
    "langchain.agents",
    "langgraph.prebuilt",
    "langgraph.checkpoint.sqlite",
    "langgraph.checkpoint.sqlite.aio",
    "langchain_core.messages.block_translators.langchain_v0",
    "langchain_core.tracers.run_collector",
    "anyio.streams.tls",
    "anyio._backends._asyncio",
    "http.server",
    "httpx",
    "httpcore",
    "h11",
    "jwt",
    "msgspec",
    "cryptography.hazmat.backends.openssl.backend",
    "cryptography.hazmat.primitives.asymmetric.ec",
    *SDK,
    "stepgrant.integrations.langgraph",
    "stepgrant.testing",
    "langgraph_agent",
)
TOLD = ("tool_exception", "doubt_of_a_tool_that_raised", "veto_reaches_the_model", "unknown_result_type")
"""Where it matters that a `ToolNode` shows every exception to the model."""
CASES = adapter_suite(lambda: pytest.fail("the test gives each case its harness"))
RUNS = [
    *((case, face, shape) for shape in ("agent", "node") for face in ("sync", "async") for case in CASES),
    *((case, face, "node-errors") for face in ("sync", "async") for case in CASES if case.name in TOLD),
]


@pytest.fixture(scope="module")
def started() -> Iterator[subprocess.Popen[str]]:
    with nursery(*IMPORTS) as process:
        yield process


@pytest.mark.parametrize(("case", "face", "shape"), RUNS, ids=str)
def test_langgraph(case: Case, face: str, shape: str, started: subprocess.Popen[str], tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    lives.mkdir()
    harness = Nursed(
        f"langgraph-{face}-{shape}", edits=True, tells_errors=shape == "node-errors", program="langgraph_agent",
        words=[face, shape], nursery=started, folder=lives,
    )  # fmt: skip
    Case(case.name, case.check, lambda: harness)(tmp_path)
