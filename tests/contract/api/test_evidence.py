"""Decisions as evidence: who may read them, what is disclosed, and that pages hold together."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from fakes.hand import ask, deny
from fakes.served import Broker
from stepgrant import canonical
from stepgrant_broker.usecases.operators import create_operator

LIMIT = "?limit=500"


async def test_what_is_disclosed_opens_what_the_entries_commit_to(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    await agent.begin(run, decision=ask(groups=["managers"]))

    page = (await broker.person("GET", f"/v1/runs/{run}/decisions{LIMIT}")).json()

    entries = [canonical.loads(canonical.b64u_decode(row["data"])) for row in page["entries"]]
    assert [entry["seq"] for entry in entries if isinstance(entry, dict)] == list(range(len(entries)))
    assert sorted(one["field"] for one in page["disclosures"]) == ["approval.binding", *["decision.input"] * 2]
    assert [one["c"] for one in page["disclosures"]] == sorted(one["c"] for one in page["disclosures"])
    raw = b"".join(canonical.b64u_decode(row["data"]) for row in page["entries"])
    for one in page["disclosures"]:
        value = canonical.dumps(one["value"])
        r = canonical.b64u_decode(one["r"])
        assert canonical.b64u(hmac.digest(r, value, hashlib.sha256)) == one["c"]
        assert one["c"].encode() in raw
        assert canonical.digest_bytes(canonical.b64u_decode(one["preimage"])) == one["value"]


async def test_pages_are_the_chain(broker: Broker) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    for number in range(3):
        await agent.begin(run, step=f"s{number}", decision=deny())
    path = f"/v1/runs/{run}/decisions"
    whole = (await broker.person("GET", path + LIMIT)).json()

    entries, disclosed, after = [], set(), "-1"
    while after != "None":
        page = (await broker.person("GET", f"{path}?limit=2&after={after}")).json()
        assert len(page["entries"]) <= 2
        entries += page["entries"]
        disclosed |= {one["c"] for one in page["disclosures"]}
        after = str(page["next"])

    assert entries == whole["entries"]
    assert disclosed == {one["c"] for one in whole["disclosures"]}


async def test_a_refused_opening_stands_in_the_tenants_own_chain_which_only_an_operator_reads(broker: Broker) -> None:
    agent = await broker.agent()
    refused = await agent.call(
        "POST", "/v1/runs", {"agent": "agent", "run_key": "no", "labels": {"stepgrant.run.open": "no"}}
    )
    assert refused.json()["code"] == "policy_denied"

    page = (await broker.person("GET", f"/v1/ledger/decisions{LIMIT}")).json()
    denied = await broker.person("GET", f"/v1/ledger/decisions{LIMIT}", who="ann")

    (one,) = page["disclosures"]
    assert canonical.loads(canonical.b64u_decode(one["preimage"]))["run"]["key"] == "no"  # type: ignore[index, call-overload]
    assert (denied.status_code, denied.json()["code"]) == (403, "forbidden")
    assert "disclosures" not in denied.json()


@pytest.mark.parametrize("who", ["agent", "gus"])
async def test_nobody_else_sees_what_decisions_were_made_on(broker: Broker, who: str) -> None:
    agent = await broker.agent()
    run = (await agent.open())["run"]
    stranger = await create_operator(broker.ports, "globex", None, name="Gus", roles=["operator"])
    broker.people["gus"] = stranger["token"]
    path = f"/v1/runs/{run}/decisions"

    if who == "agent":
        # Inputs hold what policy knows of all the run's past; its holder gets entries and receipts.
        answer = await agent.call("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    else:
        answer = await broker.person("GET", path, who=who)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_run")
    assert "entries" not in answer.json()
