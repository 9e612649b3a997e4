"""Every code of `protocol.md` §7, provoked over HTTP on the real application; each leaves nothing behind."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fakes.provoked_later import LIMITS, PROVOKED
from fakes.served import served
from stepgrant_broker.api.problems import STATUSES


def test_every_code_of_the_table_is_provoked() -> None:
    assert PROVOKED.keys() == STATUSES.keys()


@pytest.mark.parametrize("code", sorted(STATUSES))
async def test_a_code_is_a_problem_document(code: str, tmp_path: Path) -> None:
    async with served(tmp_path, LIMITS[code]) as broker:
        response = await PROVOKED[code](broker)

        body, status = response.json(), STATUSES[code]
        assert (body["code"], response.status_code, body["status"]) == (code, status.http, status.http)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["cache-control"] == "no-store"
        assert body["type"] == f"urn:stepgrant:problem:{code}"
        assert body["title"] == status.title
        assert body["detail"]
        assert "sgo_a-secret" not in response.text
        assert "Traceback" not in response.text
        assert ("retry-after" in response.headers) == (status.waits or code in {"lease_held", "prior_credential_live"})
        assert response.headers.get("www-authenticate", "").startswith("DPoP") == (status.http == 401)


EFFECTS = {"grant_issued", "grant_redeemed", "step_completed", "step_recorded"}
NOTHING_BEFORE = sorted(
    STATUSES.keys() - {"already_redeemed", "duplicate_request", "step_drift", "step_in_doubt", "suspected_duplicate",
                       "prior_credential_live", "leases_not_confirmed",
                       "grant_expired", "grant_revoked", "budget_exhausted", "conflict", "method_not_allowed"}
)  # fmt: skip


@pytest.mark.parametrize("code", NOTHING_BEFORE)
async def test_a_refusal_grants_and_records_nothing(code: str, tmp_path: Path) -> None:
    async with served(tmp_path, LIMITS[code]) as broker:
        await PROVOKED[code](broker)
        broker.hand.failpoints.armed.clear()

        runs = (await broker.person("GET", "/v1/runs")).json()["runs"]
        entries = itertools.chain(*[await broker.entries(run["id"]) for run in runs])
        assert not EFFECTS & set(entries)
