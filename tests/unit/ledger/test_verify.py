"""`ledger verify`: whatever is changed in the database, it says what and where; and nothing when nothing was."""

from __future__ import annotations

import dataclasses
from itertools import count
from pathlib import Path

import pytest

from fakes.hand import hand
from fakes.ledgers import Ledger
from fakes.tale import RUN_TYPES, TENANT_TYPES
from stepgrant_broker.domain.state import View
from stepgrant_broker.ledger import verify
from stepgrant_broker.ledger.findings import Code, Finding, Progress, entry, head, row
from stepgrant_broker.policy.bundle import digest_of
from stepgrant_broker.signing.wrap import LocalWrap
from stepgrant_broker.usecases.activate_policy import activate_policy, next_revision
from stepgrant_broker.usecases.enroll import unenroll
from stepgrant_broker.usecases.quarantine import quarantine


async def test_an_untouched_ledger_holds(ledger: Ledger) -> None:
    """And the run has every type of entry in it, so that each fold is compared with its table."""
    seen: list[Progress] = []
    check = ledger.check(watch=lambda progress: seen.append(dataclasses.replace(progress)))
    assert [finding async for finding in check.findings()] == []
    kinds = {chain: {kind for (kind,) in ledger.look(TYPES, chain)} for chain in (ledger.run, "")}
    assert kinds == {ledger.run: RUN_TYPES, "": TENANT_TYPES}
    assert (check.progress.tenants, check.progress.runs) == (1, 1)
    assert check.progress.entries == ledger.look("SELECT count(*) FROM entries")[0][0]
    assert check.progress.payloads > 20
    assert [progress.runs for progress in seen] == [1, 1]


async def test_an_empty_ledger_holds(tmp_path: Path) -> None:
    async with hand(tmp_path) as held:
        check = verify.LedgerCheck(held.store, held.store)
        assert [finding async for finding in check.findings()] == []


TYPES = "SELECT DISTINCT type FROM entries WHERE chain = ?"
ENTRY = "SELECT seq FROM entries WHERE chain = ? AND type = ? ORDER BY seq LIMIT 1"


@pytest.mark.parametrize("kind", ["grant_issued", "approval_decided", "run_opened", "step_completed"])
async def test_an_entry_that_was_changed_is_named(ledger: Ledger, kind: str) -> None:
    (seq,) = ledger.look(ENTRY, ledger.run, kind)[0]
    sql = "UPDATE entries SET data = CAST(replace(CAST(data AS TEXT), 'enforce', 'observe') AS BLOB)"
    assert ledger.change(sql + " WHERE chain = ? AND seq = ?", ledger.run, seq) == 1
    found = await ledger.findings()
    assert [(finding.code, finding.run, finding.seq) for finding in found] == [("entry_changed", ledger.run, seq)]


async def test_the_last_entry_changed_is_found_by_the_runs_head(ledger: Ledger) -> None:
    sql = "UPDATE entries SET data = CAST(replace(CAST(data AS TEXT), 'enforce', 'observe') AS BLOB)"
    ledger.change(sql + " WHERE type = 'run_ended'")
    (found,) = await ledger.findings()
    assert (found.code, found.at) == (Code.ROW_DIFFERS, row("runs", tenant="acme", id=ledger.run))
    assert found.what == "head is not what its entries say"


async def test_a_removed_entry_is_found(ledger: Ledger) -> None:
    ledger.change("DELETE FROM entries WHERE chain = ? AND seq = 7", ledger.run)
    (found,) = await ledger.findings()
    assert (found.code, found.seq, found.what) == ("entry_missing", 7, "entries 7 to 7 are gone")


async def test_a_cut_chain_is_found(ledger: Ledger) -> None:
    ledger.change("DELETE FROM entries WHERE chain = ? AND seq > 20", ledger.run)
    found = await ledger.findings()
    assert {finding.code for finding in found} == {"row_differs", "row_orphan"}
    assert any(finding.at.table == "runs" and "seq" in finding.what for finding in found)


async def test_a_chain_with_all_entries_gone_leaves_an_orphan(ledger: Ledger) -> None:
    ledger.change("DELETE FROM entries WHERE chain = ?", ledger.run)
    (found,) = await ledger.findings()
    assert found.code == "row_orphan"


async def test_two_entries_that_changed_places_are_found(ledger: Ledger) -> None:
    for old, new in ((5, 999), (6, 5), (999, 6)):
        ledger.change("UPDATE entries SET seq = ? WHERE chain = ? AND seq = ?", new, ledger.run, old)
    (found,) = await ledger.findings()
    assert (found.code, found.what, found.seq) == ("entry_changed", "entry_out_of_order", 5)


async def test_an_entry_added_behind_the_head_is_found(ledger: Ledger) -> None:
    sql = "INSERT INTO entries SELECT tenant, chain, 49, type, step, ts, hash, data, NULL FROM entries WHERE seq = 48"
    assert ledger.look("SELECT seq FROM runs") == [(49,)]
    ledger.change(sql + " AND chain = ?", ledger.run)
    (found,) = await ledger.findings()
    assert (found.code, found.seq) == ("entry_changed", 49)


@pytest.mark.parametrize(
    ("data", "code"), [(b"\xff", "entry_unreadable"), (b"{}", "entry_unreadable"), (b'{"v": 1}', "entry_unreadable")]
)
async def test_rubbish_instead_of_an_entry_is_found(ledger: Ledger, data: bytes, code: str) -> None:
    ledger.change("UPDATE entries SET data = ? WHERE chain = ? AND seq = 3", data, ledger.run)
    (found,) = await ledger.findings()
    assert (found.code, found.seq) == (code, 3)


async def test_a_rewritten_chain_with_a_type_that_is_not_known_is_refused(ledger: Ledger) -> None:
    ledger.rewrite(lambda seq, entry: entry.update(type="run_admired") if seq == 4 else None)
    (found,) = await ledger.findings()
    assert (found.code, found.seq, found.what) == ("entry_unreadable", 4, "type run_admired is not known here")


async def test_a_rewritten_chain_with_members_that_no_type_has_is_refused(ledger: Ledger) -> None:
    ledger.rewrite(lambda seq, entry: entry["body"].update(also="this") if seq == 5 else None)
    (found,) = await ledger.findings()
    assert (found.code, found.seq) == ("entry_unreadable", 5)
    assert "also" in found.what


async def test_a_rewritten_chain_that_cannot_have_happened_is_refused(ledger: Ledger) -> None:
    (seq,) = ledger.look(ENTRY, ledger.run, "grant_redeemed")[0]
    ledger.rewrite(lambda at, entry: entry["grant"].update(jti="grn_never") if at == seq else None)
    (found,) = await ledger.findings()
    assert (found.code, found.seq) == ("entry_unfoldable", seq)
    assert "grant_redeemed does not follow" in found.what


async def test_a_rewritten_tenants_chain_is_folded_as_strictly(ledger: Ledger) -> None:
    rows = ledger.look("SELECT seq, CAST(data AS TEXT) FROM entries WHERE chain = '' ORDER BY seq DESC LIMIT 1")
    seq, text = rows[0]
    removed = text.replace(ledger.look("SELECT id FROM workloads WHERE removed_at IS NOT NULL")[0][0], "wkl_never")
    ledger.change("UPDATE entries SET data = CAST(? AS BLOB) WHERE chain = '' AND seq = ?", removed, seq)
    (found,) = [finding for finding in await ledger.findings() if finding.run is None]
    assert (found.code, found.seq) == ("entry_unfoldable", seq)


TABLES = [
    ("UPDATE grants SET status = 'issued' WHERE status = 'revoked'", "row_differs", "status is not"),
    ("UPDATE grants SET audience = 'https://evil.example'", "row_differs", "audience is not"),
    ("UPDATE grants SET redeemed_at = NULL, act_before = NULL", "row_differs", "redeemed_at, act_before is not"),
    ("UPDATE grants SET meters = '{}' WHERE meters <> '{}'", "row_differs", "meters is not"),
    ("UPDATE steps SET effect = 'read'", "row_differs", "effect is not"),
    ("UPDATE steps SET state = 'prepared' WHERE state = 'completed'", "row_differs", "state is not"),
    ("UPDATE steps SET result_c = 'x' WHERE result_c IS NOT NULL", "row_differs", "result_c is not"),
    ("DELETE FROM steps WHERE key = 's1'", "row_missing", "key s1)"),
    ("DELETE FROM grants", "row_missing", "jti grn_"),
    ("UPDATE approvals SET status = 'approved', consumed_by = NULL", "row_differs", "status, consumed_by is not"),
    ("UPDATE approvals SET quorum = 0", "row_differs", "quorum is not"),
    ("DELETE FROM approvals", "row_missing", "id apr_"),
    ("UPDATE runs SET state = 'open', ended_at = NULL", "row_differs", "state, ended_at is not"),
    ("UPDATE runs SET epoch = 1", "row_differs", "epoch is not"),
    ("UPDATE runs SET workload = 'wkl_evil'", "row_differs", "workload is not"),
    ("UPDATE run_epochs SET jkt = 'stolen' WHERE epoch = 2", "row_differs", "epoch 2): jkt is not"),
    ("DELETE FROM run_epochs WHERE epoch = 1", "row_missing", "epoch 1)"),
    ("UPDATE workloads SET jkt = 'stolen'", "row_differs", "jkt is not"),
    ("UPDATE workloads SET agents = '[\"root\"]'", "row_differs", "agents is not"),
    ("UPDATE workloads SET removed_at = NULL", "row_differs", "removed_at is not"),
    ("DELETE FROM workloads WHERE removed_at IS NULL", "row_missing", "id wkl_"),
    ('UPDATE operators SET roles = \'["approver","operator"]\'', "row_differs", "roles is not"),
    ("UPDATE operators SET token_hash = 'x' WHERE removed_at IS NULL", "row_differs", "token_hash is not"),
    ("DELETE FROM quarantines WHERE kind = 'agent'", "row_missing", "kind agent, name other-agent)"),
    (
        "UPDATE quarantines SET released_at = NULL WHERE kind = 'issuer'",
        "row_orphan",
        "kind issuer, name static)",
    ),
    ("UPDATE secrets SET hosts = '[\"evil.example\"]'", "row_differs", "name crm)"),
    ("UPDATE policies SET text = CAST('{}' AS BLOB)", "row_differs", "the text is not the one"),
    ("UPDATE policies SET text = CAST('{' AS BLOB)", "row_differs", "the text is not the one"),
    ("UPDATE policies SET text = CAST('{\"a\":1}' AS BLOB)", "row_differs", "the text is not the one"),
    ("UPDATE policies SET text = CAST('[1]' AS BLOB)", "row_differs", "the text is not the one"),
    ("DELETE FROM policies", "row_missing", "revision 1:sha-256:"),
    ("UPDATE tenants SET policy_revision = '9:x'", "row_differs", "tenants (id acme)"),
    (
        "UPDATE payloads SET body = CAST('\"forged\"' AS BLOB) WHERE field = 'outcome.result'",
        "payload_changed",
        "result",
    ),
    (
        "UPDATE payloads SET field = 'run.input' WHERE field = 'action.digest'",
        "payload_changed",
        "the stored run.input",
    ),
    (
        "UPDATE payloads SET form = 'value' WHERE form = 'preimage'",
        "payload_changed",
        "is not what the entry commits to",
    ),
    ("DELETE FROM chain_keys WHERE run <> ''", "key_missing", "it is gone"),
    ("UPDATE chain_keys SET ciphertext = CAST('x' AS BLOB)", "key_unusable", "does not unwrap"),
]


@pytest.mark.parametrize(("sql", "code", "what"), TABLES, ids=count())
async def test_a_table_that_says_something_else_is_found(ledger: Ledger, sql: str, code: str, what: str) -> None:
    assert ledger.change(sql) >= 1
    found = await ledger.findings()
    assert found
    assert {finding.code for finding in found} == {code}
    assert any(what in str(finding) for finding in found), [str(finding) for finding in found]


async def test_what_the_store_cannot_read_is_a_finding_not_a_crash(ledger: Ledger) -> None:
    ledger.change("UPDATE steps SET effect = 'harmless' WHERE key = 's2'")
    (found,) = await ledger.findings()
    assert (found.code, found.at) == (Code.UNREADABLE, row("runs", tenant="acme", id=ledger.run))
    assert "damaged" in found.what


async def test_names_that_were_changed_are_found_and_the_people_still_compared(ledger: Ledger) -> None:
    ledger.change("UPDATE payloads SET body = CAST('1' AS BLOB) WHERE field = 'operator.name'")
    ledger.change("UPDATE operators SET roles = '[\"approver\"]' WHERE removed_at IS NULL")
    found = await ledger.findings()
    assert [finding.at.table for finding in found] == ["payloads", "payloads", "operators"]
    assert {finding.code for finding in found[:2]} == {Code.PAYLOAD_CHANGED}


async def test_a_row_that_no_entry_made_is_found(ledger: Ledger) -> None:
    columns = [column[1] for column in ledger.look("PRAGMA table_info(steps)")]
    chosen = ", ".join("'ghost'" if name == "key" else f'"{name}"' for name in columns)
    assert ledger.change(f"INSERT INTO steps SELECT {chosen} FROM steps WHERE key = 's1'") == 1  # noqa: S608
    (found,) = await ledger.findings()
    assert (found.code, found.at) == (Code.ROW_ORPHAN, row("steps", tenant="acme", run=ledger.run, key="ghost"))


async def test_a_planted_enrolment_is_found(ledger: Ledger) -> None:
    columns = [column[1] for column in ledger.look("PRAGMA table_info(workloads)")]
    chosen = ", ".join("'wkl_evil'" if name == "id" else f'"{name}"' for name in columns)
    ledger.change(f"INSERT INTO workloads SELECT {chosen} FROM workloads LIMIT 1")  # noqa: S608
    (found,) = await ledger.findings()
    assert (found.code, found.at) == (Code.ROW_ORPHAN, row("workloads", tenant="acme", id="wkl_evil"))


async def test_another_brokers_key_cannot_open_it_and_says_so(ledger: Ledger, tmp_path: Path) -> None:
    other = LocalWrap.open(tmp_path / "other", create=True)
    found = [finding async for finding in ledger.check(wrap=other).findings()]
    assert {finding.code for finding in found} == {"key_unusable"}


async def test_without_a_key_values_are_not_checked_but_all_else_is(ledger: Ledger) -> None:
    ledger.change("UPDATE payloads SET body = CAST('1' AS BLOB) WHERE field <> 'operator.name'")
    check = ledger.check(wrap=None)
    assert [finding async for finding in check.findings()] == []
    assert check.progress.payloads == 0


async def test_chains_longer_than_a_page_and_many_values_are_read(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("check_values.BATCH", "chain.PAGE", "compare.PAGE"):
        monkeypatch.setattr(f"stepgrant_broker.ledger.{module}", 2)
    assert await ledger.findings() == []


async def test_what_happens_later_is_no_finding(tmp_path: Path) -> None:
    """A second policy; a switch on a workload that is then removed, which releases the switch."""
    async with hand(tmp_path) as held:
        ports, other = held.ports, {"stepgrant/other.rego": "package other\n"}
        check = verify.LedgerCheck(held.store, held.store, ports.wrap, digest_of)
        revision = await next_revision(ports, digest_of(other))
        await activate_policy(ports, "acme", None, revision=revision, text=other)
        await quarantine(ports, held.operator, "workload", held.workload.id)
        assert [str(finding) async for finding in check.findings()] == []
        await unenroll(ports, "acme", held.operator, held.workload.id)
        assert [str(finding) async for finding in check.findings()] == []


async def test_a_run_that_never_stands_still_is_said_to_be_unchecked(ledger: Ledger) -> None:
    class Restless(verify.LedgerCheck):
        async def _stored(self, tenant: str, run: str) -> View:
            ledger.change("UPDATE runs SET seq = seq + 1")
            return await super()._stored(tenant, run)

    check = Restless(ledger.store, ledger.store)
    assert [finding.code async for finding in check.findings()] == ["not_checked"]


def test_a_finding_reads_as_one_line() -> None:
    found = Finding(Code.ENTRY_CHANGED, entry("acme", "run_1", 3), "why", 3)
    assert str(found) == "entry_changed: entries (tenant acme, chain run_1, seq 3): why"
    assert (found.tenant, found.run, found.seq) == ("acme", "run_1", 3)
    lost = Finding(Code.ROW_ORPHAN, row("steps", tenant="acme", run="run_1", key="s1"), "why")
    assert str(lost) == "row_orphan: steps (tenant acme, run run_1, key s1): why"
    assert lost.plain() == {
        "code": "row_orphan", "tenant": "acme", "run": "run_1", "seq": None, "what": "why",
        "at": {"table": "steps", "tenant": "acme", "run": "run_1", "key": "s1"},
    }  # fmt: skip
    assert (Finding(Code.HEAD_MISSING, head(5), "why").tenant, Finding(Code.HEAD_MISSING, head(5), "why").run) == (
        None,
        None,
    )
