"""The real use cases over a real store do what the plain model of protocol.md says: every answer, all visible state."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.store.adapters import PostgresDatabase
from model import walking
from soak.result import Result

if TYPE_CHECKING:
    from stepgrant_services import PostgresServer

REACHED = (
    "answered run", "answered replay", "answered denied", "answered approval_required", "answered in_doubt", "lost",
    "refused stale_epoch", "refused step_drift", "refused lease_held", "refused prior_credential_live",
    "refused grant_revoked", "refused already_redeemed", "refused digest_mismatch", "refused quarantined",
    "refused duplicate_request", "refused policy_denied",
)  # fmt: skip


def disagreements(result: Result) -> str:
    return "\n".join(result.violations)


@pytest.mark.timeout(900)
def test_three_hundred_walks_over_sqlite() -> None:
    result = walking.walk(0, 300)

    assert not disagreements(result)
    assert [name for name in REACHED if not result.counts.get(name)] == []


@pytest.mark.timeout(900)
def test_some_walks_over_postgresql(postgres_server: PostgresServer) -> None:
    result = walking.walk(1, 40, PostgresDatabase.on(postgres_server).location)

    assert not disagreements(result)
    assert result.counts["answered run"] > 0


def test_the_model_knows_nothing_of_the_broker() -> None:
    folder = Path(__file__).parent.parent / "model"
    for name in ("plain.py", "said.py", "things.py"):
        for node in ast.walk(ast.parse((folder / name).read_text())):
            known = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            known += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [one for one in known if one.startswith(("stepgrant", "fakes"))], name
