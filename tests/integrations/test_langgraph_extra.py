"""The integration is an extra: without it the SDK works, and importing the integration says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("langgraph", "langchain", "langchain_core", "pydantic"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """In an interpreter that has no LangGraph."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code], check=False, capture_output=True, text=True, timeout=120
    )


def test_import_without_the_extra_names_it() -> None:
    done = run("import stepgrant.integrations.langgraph")
    assert done.returncode == 1
    assert "pip install 'stepgrant[langgraph]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "module", ["stepgrant.integrations", "stepgrant._adapter", "stepgrant._run", "stepgrant._tool"]
)
def test_sdk_needs_no_framework(module: str) -> None:
    done = run(f"import {module}; assert not [n for n in sys.modules if n.startswith('lang')]; print('ok')")
    assert done.stdout == "ok\n", done.stderr


def test_suite_needs_no_framework() -> None:
    done = run("from stepgrant.testing import adapter_suite, Play; print('ok')")
    assert done.stdout == "ok\n", done.stderr
