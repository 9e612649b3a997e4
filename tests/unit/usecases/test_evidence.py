"""What is disclosed of decisions: what entries commit to and nothing else, damaged or not, until it is erased."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fakes.hand import Hand, allow, ask
from stepgrant import canonical
from stepgrant_broker.domain.errors import PolicyDenied
from stepgrant_broker.domain.outcomes import Result
from stepgrant_broker.usecases.end import end
from stepgrant_broker.usecases.erase import erase_run
from stepgrant_broker.usecases.evidence import Evidence, evidence

WHOLE = {"after": -1, "limit": 500}


async def asked_and_granted(broker: Hand) -> str:
    """A run of three decisions and one question, by entries 0, 2, 3 and 5."""
    run = str((await broker.open())["run"])
    await broker.begin(run, "s1", ask(groups=["finance"]), args={"amount": 7})
    await broker.begin(run, "s2", allow())
    assert await broker.entries(run) == [
        "run_opened", "step_prepared", "decision", "approval_requested", "step_prepared", "decision", "grant_issued",
    ]  # fmt: skip
    return run


def opens(disclosure: dict[str, Any]) -> bool:
    """Whether its `r` opens its commitment to its value (and its preimage to that)."""
    value, r = canonical.dumps(disclosure["value"]), canonical.b64u_decode(disclosure["r"])
    if "preimage" in disclosure:
        digest = canonical.digest_bytes(canonical.b64u_decode(disclosure["preimage"]))
        assert digest == disclosure["value"]
    return hmac.compare_digest(canonical.b64u(hmac.digest(r, value, hashlib.sha256)), disclosure["c"])


def change(folder: Path, sql: str, *values: object) -> None:
    """Change the database past the broker."""
    db = sqlite3.connect(folder / "store" / "stepgrant.db")
    try:
        assert db.execute(sql, values).rowcount == 1
        db.commit()
    finally:
        db.close()


async def test_inputs_and_bindings_are_disclosed_each_with_what_opens_it(broker: Hand) -> None:
    run = await asked_and_granted(broker)
    found = await evidence(broker.ports, "acme", run, **WHOLE)
    assert found.entries == await broker.ports.reads.entries("acme", run)
    fields = [one["field"] for one in found.disclosures]
    assert sorted(fields) == ["approval.binding", *["decision.input"] * 3]
    assert all(map(opens, found.disclosures))
    assert [one["c"] for one in found.disclosures] == sorted(one["c"] for one in found.disclosures)
    whole = {
        field: [
            canonical.loads(canonical.b64u_decode(one["preimage"]))
            for one in found.disclosures
            if one["field"] == field
        ]
        for field in fields
    }
    inputs: Any = whole["decision.input"]
    assert [one["action"]["args"] for one in inputs if one["step"]["key"] == "s1"] == [{"amount": 7}]
    (bound,) = whole["approval.binding"]
    assert (bound["run"], bound["step"], bound["issuer"]) == (run, "s1", "jwt")  # type: ignore[index, call-overload]
    assert found.damaged == ()
    key = await broker.store.chain_key("acme", run)
    assert key is not None
    plain = canonical.b64u(broker.ports.keys.unwrap(key, broker.ports.wrap))
    assert plain not in repr(found), "the key that opens everything stays here"


async def test_a_page_discloses_what_its_own_entries_commit_to(broker: Hand) -> None:
    run = await asked_and_granted(broker)
    whole = await evidence(broker.ports, "acme", run, **WHOLE)
    pages = [await evidence(broker.ports, "acme", run, after=after, limit=2) for after in (-1, 1, 3, 5)]
    assert [[row.seq for row in page.entries] for page in pages] == [[0, 1], [2, 3], [4, 5], [6]]
    # The question repeats the decision that stands before it.
    assert [len(page.disclosures) for page in pages] == [1, 2, 1, 0]
    assert sorted((one for page in pages for one in page.disclosures), key=lambda one: one["c"]) == list(
        whole.disclosures
    )


async def test_the_tenants_own_chain_has_its_own_evidence_and_nobody_elses(broker: Hand) -> None:
    run = await asked_and_granted(broker)
    with pytest.raises(PolicyDenied):
        await broker.open("refused", labels={"stepgrant.run.open": "no"})
    (refused,) = (await evidence(broker.ports, "acme", None, **WHOLE)).disclosures
    assert opens(refused)
    assert canonical.loads(canonical.b64u_decode(refused["preimage"]))["run"]["key"] == "refused"  # type: ignore[index, call-overload]
    assert await evidence(broker.ports, "globex", run, **WHOLE) == Evidence(())
    assert await evidence(broker.ports, "acme", "run_nobody", **WHOLE) == Evidence(())


async def test_what_was_changed_at_rest_is_named_and_hides_nothing_else(broker: Hand, tmp_path: Path) -> None:
    run = await asked_and_granted(broker)
    before = await evidence(broker.ports, "acme", run, **WHOLE)
    spoiled = before.disclosures[1]
    change(tmp_path, "UPDATE payloads SET body = ? WHERE chain = ? AND c = ?", b"other", run, spoiled["c"])
    found = await evidence(broker.ports, "acme", run, **WHOLE)
    assert found.damaged == (spoiled["c"],)
    assert found.disclosures == tuple(one for one in before.disclosures if one != spoiled)
    assert found.entries == before.entries


async def test_an_entry_that_is_none_goes_out_as_it_is(broker: Hand, tmp_path: Path) -> None:
    """Whoever reads it finds out for himself, and the entries beside it are disclosed."""
    run = await asked_and_granted(broker)
    before = await evidence(broker.ports, "acme", run, **WHOLE)
    for data in (b'{"input_c"', b'["input_c"]', b'{"decision":{"input_c":1}}', b'{"body":"input_c"}'):
        change(tmp_path, "UPDATE entries SET data = ? WHERE chain = ? AND seq = 5", data, run)
        found = await evidence(broker.ports, "acme", run, **WHOLE)
        assert [row.data for row in found.entries] == [data if row.seq == 5 else row.data for row in before.entries]
        assert len(found.disclosures) == len(before.disclosures) - 1
        assert set(map(str, found.disclosures)) < set(map(str, before.disclosures))


async def test_after_erasure_there_is_nothing_to_disclose(broker: Hand) -> None:
    run = await asked_and_granted(broker)
    await end(broker.ports, broker.agent(), run, 1, "failed", Result(None), broker.request())
    before = await evidence(broker.ports, "acme", run, **WHOLE)
    assert before.disclosures
    await erase_run(broker.ports, broker.operator, run)
    found = await evidence(broker.ports, "acme", run, **WHOLE)
    assert (found.disclosures, found.damaged) == ((), ())
    assert found.entries[:-1] == before.entries
