"""Making receipts: what they disclose and never disclose, and that nothing wrong is signed over."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.ledgers import Ledger
from fakes.tale import INPUT, PRINCIPAL
from stepgrant import _receipt_entries, canonical, receipt, tlog
from stepgrant_broker.domain import aad, entries
from stepgrant_broker.domain.errors import (
    NotFound,
    PayloadDamaged,
    SignerUnavailable,
    StoreUnavailable,
    TooLarge,
    UnknownRun,
)
from stepgrant_broker.ledger.public_log import PublicLog
from stepgrant_broker.ledger.receipt import make_receipt
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.signing.local import LocalSigner

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
WITNESS = tlog.note_key("w", tlog.COSIGNATURE, tlog.read_vkey(PETER).public).vkey


async def make(ledger: Ledger, run: str | None = None, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    return await make_receipt(ledger.store, ledger.wrap, ledger.signer, "acme", run or ledger.run, **options)


async def verified(ledger: Ledger, value: dict[str, Any]) -> receipt.Verified:
    return receipt.verify(canonical.dumps(value), await ledger.keys())


async def test_a_finished_run_gives_a_complete_receipt_with_all_values(ledger: Ledger) -> None:
    told = await verified(ledger, await make(ledger))
    assert (told.tenant, told.run, told.complete, told.hidden) == ("acme", ledger.run, True, 0)
    assert told.head_ts == ledger.clock.now()
    opened, ended = told.events[0], told.events[-1]
    assert opened.preimages["run.input"] == canonical.loads(INPUT)
    assert opened.disclosed["principal"] == PRINCIPAL
    assert ended.preimages["outcome.result"] == {"rotated": 2}
    by_type = {event.type: event for event in told.events}
    assert by_type["approval_decided"].disclosed["approval.note"] == "looks right"
    assert by_type["step_reconciled"].disclosed["reconcile.evidence"] == "version 7 at the target"
    assert by_type["step_failed"].disclosed["outcome.error"] == "timed out"
    assert str(by_type["approval_requested"].disclosed["approval.binding"]).startswith("sha-256:")
    assert "approval.binding" not in by_type["approval_requested"].preimages


async def test_every_field_that_the_broker_commits_to_is_known_to_verifiers(ledger: Ledger) -> None:
    """Or a disclosure could be renamed unnoticed: only known places are checked word for word."""
    told = await verified(ledger, await make(ledger))
    places = {place for event in told.events for place, _ in _receipt_entries.commitments(event)}
    assert {place for place in places if place.startswith("*")} == set()
    assert set(entries.EntryType) == _receipt_entries.TYPES
    assert entries.ALWAYS == _receipt_entries.MEMBERS
    assert (entries.VERSION, entries.GENESIS) == (_receipt_entries.VERSION, _receipt_entries.GENESIS)


async def test_the_runs_key_is_never_in_it(ledger: Ledger) -> None:
    key = await ledger.store.chain_key("acme", ledger.run)
    assert key is not None
    plain = ledger.wrap.unwrap(key.wrapped, aad.chain_key("acme", ledger.run))
    text = canonical.dumps(await make(ledger))
    assert canonical.b64u(plain).encode() not in text
    assert plain.hex().encode() not in text


async def test_fields_can_be_left_out(ledger: Ledger) -> None:
    told = await verified(ledger, await make(ledger, redact={"by.subject", "principal", "run.input"}))
    shown = {name for event in told.events for name in event.disclosed}
    assert shown.isdisjoint({"by.subject", "principal", "run.input"})
    assert "action.resource" in shown
    assert told.hidden >= 3
    assert PRINCIPAL.encode() not in canonical.dumps(await make(ledger, redact={"principal"}, preimages=False))


async def test_digests_can_be_shown_without_what_they_are_of(ledger: Ledger) -> None:
    told = await verified(ledger, await make(ledger, preimages=False))
    assert not any(event.preimages for event in told.events)
    assert str(told.events[0].disclosed["run.input"]).startswith("sha-256:")


async def test_after_erasure_the_entries_still_verify_and_nothing_is_shown(ledger: Ledger) -> None:
    ledger.change("DELETE FROM chain_keys WHERE run = ?", ledger.run)
    ledger.change("DELETE FROM payloads WHERE chain = ?", ledger.run)
    told = await verified(ledger, await make(ledger))
    assert (told.disclosed, told.complete) == (0, True)
    assert told.hidden > 20


async def test_a_value_that_is_gone_stays_hidden(ledger: Ledger) -> None:
    ledger.change("DELETE FROM payloads WHERE field = 'run.input'")
    told = await verified(ledger, await make(ledger))
    assert told.hidden == 1
    assert "run.input" not in told.events[0].disclosed


FORGED = "UPDATE payloads SET body = CAST('\"forged\"' AS BLOB), key_id = {} WHERE field = 'outcome.result'"


@pytest.mark.parametrize(
    ("key_id", "kind", "said"),
    [
        ("key_id", PayloadDamaged, r"outcome\.result behind .* does not open"),
        ("NULL", StoreUnavailable, r"outcome\.result is not what its entry commits to"),
    ],
    ids=["sealed", "in clear, of an older store"],
)
async def test_a_value_that_was_changed_at_rest_is_not_signed_over(
    ledger: Ledger, key_id: str, kind: type[Exception], said: str
) -> None:
    ledger.change(FORGED.format(key_id))
    with pytest.raises(kind, match=said):
        await make(ledger)
    assert (await verified(ledger, await make(ledger, redact={"outcome.result"}))).hidden > 0


OBSERVE = "CAST(replace(CAST(data AS TEXT), 'enforce', 'observe') AS BLOB)"
FIRST = "(SELECT data FROM entries WHERE seq = 0 AND chain <> '')"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM entries WHERE chain = ? AND seq = 4", "entry_out_of_order at entry 4"),
        (f"UPDATE entries SET data = {FIRST} WHERE chain = ? AND seq = 1", "entry_out_of_order at entry 1"),  # noqa: S608
        (f"UPDATE entries SET data = {OBSERVE} WHERE chain = ? AND seq = 4", "wrong_hash at entry 5"),  # noqa: S608
        ("UPDATE entries SET data = CAST('{' AS BLOB) WHERE chain = ? AND seq = 4", "entry_unreadable at entry 4"),
    ],
    ids=["removed", "repeated", "changed", "unreadable"],
)
async def test_a_damaged_chain_gives_no_receipt(ledger: Ledger, sql: str, said: str) -> None:
    ledger.change(sql, ledger.run)
    with pytest.raises(StoreUnavailable, match=said):
        await make(ledger)


async def test_an_unknown_run_and_another_tenants_have_none(ledger: Ledger) -> None:
    with pytest.raises(UnknownRun):
        await make(ledger, "run_of_nobody")
    with pytest.raises(UnknownRun):
        await make_receipt(ledger.store, ledger.wrap, ledger.signer, "other", ledger.run)


async def test_a_run_that_is_too_long_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepgrant_broker.ledger.receipt.MAX_ENTRIES", 10)
    with pytest.raises(TooLarge, match="at most 10 entries"):
        await make(ledger)


async def test_long_runs_are_read_by_pages(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await make(ledger)
    monkeypatch.setattr("stepgrant_broker.ledger.receipt.PAGE", 3)
    assert await make(ledger) == whole


async def test_without_its_key_no_head_is_made(ledger: Ledger) -> None:
    with pytest.raises(SignerUnavailable):
        await make_receipt(ledger.store, ledger.wrap, LocalSigner({}), "acme", ledger.run)


async def test_a_clock_behind_the_last_entry_does_not_date_the_head_before_it(ledger: Ledger) -> None:
    ledger.clock.ms = 1
    told = await verified(ledger, await make(ledger))
    assert told.head_ts == told.events[-1].ts


async def test_an_open_run_gives_a_receipt_that_a_later_one_continues(ledger: Ledger) -> None:
    later = await verified(ledger, await make(ledger))
    ledger.change("DELETE FROM entries WHERE chain = ? AND seq > 20", ledger.run)
    earlier = await verified(ledger, await make(ledger))
    assert (earlier.complete, len(earlier.events)) == (False, 21)
    later.continues(earlier)


# ------------------------------------------------------------------------------------------------------- in the log


async def public_log(ledger: Ledger) -> PublicLog:
    """The ledger's log, of which nothing is integrated yet."""
    origin = await ledger.store.log_origin("broker.example/log")
    return PublicLog(ledger.store, Sequencer(ledger.store, ledger.signer, ledger.clock, origin))


async def test_a_receipt_waits_for_the_log_and_proves_each_entry(ledger: Ledger) -> None:
    told = await verified(ledger, await make(ledger, log=await public_log(ledger)))
    assert told.logged is not None
    assert len(told.logged.indexes) == len(told.events)
    assert told.policies
    assert all(revision.startswith("1:sha-256:") for revision in told.policies)


async def test_a_step_and_a_grant_have_receipts_of_their_own(ledger: Ledger) -> None:
    log = await public_log(ledger)
    whole = await verified(ledger, await make(ledger, log=log))
    issued = next(event for event in whole.events if event.type == "grant_issued")
    jti = str(issued.part("grant")["jti"])
    parts = {}
    for scope in (("step", str(issued.step)), ("grant", jti)):
        part = parts[scope[0]] = await verified(ledger, await make(ledger, log=log, scope=scope))
        assert part.scope == scope
        assert 0 < len(part.events) < len(whole.events)
        assert {event.hash for event in part.events} < {event.hash for event in whole.events}
    types = [event.type for event in parts["grant"].events]
    assert (types[:3], "grant_revoked" in types) == (["step_prepared", "decision", "grant_issued"], True)


async def test_a_grants_receipt_has_what_it_rests_on(ledger: Ledger) -> None:
    """The decision, the policy's text, and who approved: without them a grant says little."""
    log = await public_log(ledger)
    whole = await verified(ledger, await make(ledger, log=log))
    jti = next(grant.jti for grant in whole.grants if grant.approval is not None)
    told = await verified(ledger, await make(ledger, log=log, scope=("grant", jti)))
    assert [event.type for event in told.events] == [
        "step_prepared", "decision", "approval_requested", "approval_decided", "decision", "grant_issued",
        "grant_revoked",
    ]  # fmt: skip
    grant = told.grant(jti)
    assert grant.decision is not None
    assert grant.decision.policy == whole.policies[str(grant.decision.revision)]
    assert [who.kind for one in told.approvals for who in one.approved_by] == ["person"]
    assert (told.approvals[0].id, told.approvals[0].used_by) == (grant.approval, jti)


async def test_of_what_is_not_in_the_run_there_is_no_receipt(ledger: Ledger) -> None:
    for scope in (("step", "nothing"), ("grant", "grn_nothing")):
        with pytest.raises(NotFound, match="has no entry of"):
            await make(ledger, scope=scope)


async def test_without_a_head_that_counts_the_receipt_says_so(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepgrant_broker.ledger.placing.PATIENCE_S", 0.2)

    class Silent:
        policy = tlog.read_log_policy(f"log {PETER}\nwitness w {WITNESS}\nquorum w")

        async def cosign(self, head: tlog.Head, note: tlog.Note) -> list[tlog.NoteSignature]:
            return []

    origin = await ledger.store.log_origin("broker.example/log")
    sequencer = Sequencer(ledger.store, ledger.signer, ledger.clock, origin, witnesses=Silent())
    told = await verified(ledger, await make(ledger, log=PublicLog(ledger.store, sequencer)))
    assert told.logged is None
