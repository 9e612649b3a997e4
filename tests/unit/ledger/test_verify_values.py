"""`ledger verify` and values behind commitments: one that is gone is found, unless an entry tells why it went."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.hand import Hand, hand
from fakes.ledgers import Ledger
from fakes.outside import LOGIN, OutsideIssuer, grants, opened, payloads_behind
from stepgrant_broker.domain.ports import Revocation
from stepgrant_broker.domain.state import Grant, GrantStatus
from stepgrant_broker.ledger.findings import Code, Finding, row
from stepgrant_broker.ledger.verify import LedgerCheck
from stepgrant_broker.usecases.sweep import sweep

FIELDS = [
    "action.digest", "action.resource", "approval.binding", "approval.note", "by.subject", "decision.input",
    "outcome.error", "outcome.result", "principal", "reconcile.evidence", "run.input",
]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
async def test_a_value_that_was_deleted_is_found_at_its_place(ledger: Ledger, field: str) -> None:
    (c,) = ledger.look("SELECT min(c) FROM payloads WHERE field = ? AND chain = ?", field, ledger.run)[0]
    assert ledger.change("DELETE FROM payloads WHERE c = ? AND chain = ?", c, ledger.run) == 1
    (found,) = await ledger.findings()
    assert (found.code, found.at) == (Code.PAYLOAD_MISSING, row("payloads", tenant="acme", chain=ledger.run, c=c))
    assert field in found.what
    (data,) = ledger.look("SELECT data FROM entries WHERE chain = ? AND seq = ?", ledger.run, found.seq)[0]
    assert c.encode() in data


async def test_a_persons_name_that_was_deleted_is_found_in_the_tenants_own_chain(ledger: Ledger) -> None:
    rows = ledger.look("SELECT c FROM payloads WHERE chain = '' AND field = 'operator.name'")
    assert ledger.change("DELETE FROM payloads WHERE chain = '' AND field = 'operator.name'") == len(rows) >= 2
    found = await ledger.findings()
    assert {(one.code, one.at) for one in found} == {
        (Code.PAYLOAD_MISSING, row("payloads", tenant="acme", chain="", c=c)) for (c,) in rows
    }
    assert len(found) == len(rows)


async def test_all_values_of_a_run_that_were_deleted_are_found_once_each(ledger: Ledger) -> None:
    rows = ledger.look("SELECT c FROM payloads WHERE chain = ? AND expires_at IS NULL", ledger.run)
    ledger.change("DELETE FROM payloads WHERE chain = ?", ledger.run)
    found = await ledger.findings()
    assert {one.code for one in found} == {Code.PAYLOAD_MISSING}
    assert {one.at["c"] for one in found} == {c for (c,) in rows}
    assert len(found) == len(rows)


async def test_without_the_key_of_the_chain_only_that_is_told(ledger: Ledger) -> None:
    ledger.change("DELETE FROM payloads WHERE chain = ?", ledger.run)
    ledger.change("DELETE FROM chain_keys WHERE run = ?", ledger.run)
    (found,) = await ledger.findings()
    assert found.code == Code.KEY_MISSING


@dataclass
class Outside:
    """A broker with an issuer outside, and the file behind it."""

    held: Hand
    issuer: OutsideIssuer
    run: str
    file: Path

    async def grant(self) -> Grant:
        """The one grant."""
        (grant,) = await grants(self.held, self.run)
        return grant

    def drop(self, commitments: Sequence[str]) -> None:
        """Delete values past the broker."""
        with closing(sqlite3.connect(self.file)) as db:
            for c in commitments:
                assert db.execute("DELETE FROM payloads WHERE c = ?", (c,)).rowcount == 1
            db.commit()

    async def findings(self) -> list[Finding]:
        """What a check finds."""
        check = LedgerCheck(self.held.store, self.held.store, self.held.ports.wrap)
        return [finding async for finding in check.findings()]


@pytest.fixture
async def outside(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Outside]:
    async with hand(tmp_path) as held:
        issuer = OutsideIssuer(revocation=getattr(request, "param", Revocation.CONFIRMED))
        held.ports = replace(held.ports, issuers={**held.ports.issuers, "outside": issuer})
        made = Outside(held, issuer, await opened(held), tmp_path / "store" / "stepgrant.db")
        await held.begin(made.run, decision=LOGIN)
        yield made


async def test_what_names_a_living_credential_must_be_there(outside: Outside) -> None:
    """Without it nobody could take the credential back."""
    names = await payloads_behind(outside.held, await outside.grant())
    assert len(names) == 2
    assert await outside.findings() == []
    outside.drop(names)
    found = await outside.findings()
    assert {(one.code, one.at["c"]) for one in found} == {(Code.PAYLOAD_MISSING, c) for c in names}
    assert sorted(one.what.split(" that ")[0] for one in found) == ["the handle", "the lease"]


async def test_it_must_be_there_until_the_issuer_has_confirmed_and_is_gone_then(outside: Outside) -> None:
    outside.issuer.confirms = False
    await outside.held.complete(outside.run)
    grant = await outside.grant()
    assert (grant.status, grant.confirmed_at) == (GrantStatus.REVOKED, None)
    names = await payloads_behind(outside.held, grant)
    assert len(names) == 2
    assert await outside.findings() == []

    outside.issuer.confirms = True
    assert (await sweep(outside.held.ports)).confirmed == 1
    assert await payloads_behind(outside.held, grant) == []
    assert await outside.findings() == []


async def test_it_is_missed_between_revocation_and_confirmation(outside: Outside) -> None:
    outside.issuer.confirms = False
    await outside.held.complete(outside.run)
    names = await payloads_behind(outside.held, await outside.grant())
    outside.drop(names)
    found = await outside.findings()
    assert {(one.code, one.at["c"]) for one in found} == {(Code.PAYLOAD_MISSING, c) for c in names}


@pytest.mark.parametrize("outside", [Revocation.EXPIRY], indirect=True)
async def test_what_nobody_confirms_stays_for_ever(outside: Outside) -> None:
    """Its revocation is entered as final at once, and takes no value along."""
    await outside.held.complete(outside.run)
    grant = await outside.grant()
    assert grant.status is GrantStatus.REVOKED
    names = await payloads_behind(outside.held, grant)
    assert len(names) == 2
    assert await outside.findings() == []
    outside.drop(names)
    assert {(one.code, one.at["c"]) for one in await outside.findings()} == {(Code.PAYLOAD_MISSING, c) for c in names}
