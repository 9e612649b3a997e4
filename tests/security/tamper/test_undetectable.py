"""What `ledger verify` cannot find in a stolen database, row by row: shown to be invisible.

`broker/stepgrant_broker/ledger/README.md` says what each leads to; a test compares its list with the one here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import stepgrant_broker.ledger
from fakes.clock import StandingClock
from security.tamper.stolen import NOW, Stolen
from security.tamper.test_others import of_file, of_witness
from security.tamper.victim import ORIGIN
from stepgrant import tlog
from stepgrant_broker.ledger.sequencer import Sequencer
from stepgrant_broker.signing.local import LocalSigner


@dataclass(frozen=True)
class Blind:
    """A manipulation that is not found. `name` is the README's; each statement changes rows."""

    name: str
    statements: tuple[str, ...]


BLIND: Final = (
    Blind("Some of the signed heads are deleted", (
        "DELETE FROM log_heads WHERE size = (SELECT min(size) FROM log_heads)",)),
    Blind("Times of the tree and of its heads", ("UPDATE log SET ts = ts + 5", "UPDATE log_heads SET ts = 5")),
    Blind("When a first key was first seen", ("UPDATE signing_keys SET since = 5 WHERE signs_from = 0",)),
    Blind("Until when a run is held", ("UPDATE runs SET lease_until = 5",)),
    Blind("Guard numbers", ("UPDATE tenants SET guard = 0",)),
    Blind("Answers that are kept for repeated calls", (
        "DELETE FROM answers", "DELETE FROM payloads WHERE expires_at IS NOT NULL")),
    Blind("Which proofs were used", ("DELETE FROM proofs",)),
    Blind("How long a stored value lasts", ("UPDATE payloads SET expires_at = 5 WHERE expires_at IS NULL",)),
    Blind("The value of a static secret", ("UPDATE secrets SET ciphertext = nonce",)),
)  # fmt: skip


@pytest.mark.parametrize("blind", BLIND, ids=lambda one: one.name.replace(" ", "-"))
async def test_it_cannot_be_told(stolen: Stolen, blind: Blind) -> None:
    for sql in blind.statements:
        assert stolen.do(sql) >= 1, sql
    assert [str(one) for one in await stolen.findings()] == []


def test_the_readme_has_the_same_list() -> None:
    text = (Path(stepgrant_broker.ledger.__file__).parent / "README.md").read_text()
    _, _, part = text.partition("## What `ledger verify` cannot find")
    rows = re.findall(r"^\| ([A-Z][^|]+?) +\|", part, flags=re.MULTILINE)
    assert rows == [one.name for one in BLIND]


WHICH = {"the first": slice(0, 1), "one in the middle": slice(2, 3), "the last": slice(-1, None), "many": slice(1, -1)}


@pytest.mark.parametrize("which", WHICH.values(), ids=WHICH)
async def test_no_head_speaks_of_another_so_one_that_is_deleted_is_not_missed_and_nothing_is_lost(
    stolen: Stolen, which: slice
) -> None:
    """Each stands for the whole tree below it: what it proved is proven by the next one, or by itself elsewhere."""
    sizes = sorted(stolen.victim.heads)
    gone = sizes[which]
    for size in gone:
        assert stolen.do("DELETE FROM log_heads WHERE size = :size", size=size) == 1
    assert await stolen.findings() == []
    kept = [of_file(stolen, size) for size in gone]
    assert await stolen.findings(*kept, of_witness(stolen, 0)) == []

    async with stolen.checking() as check:
        assert check.log is not None
        signer = LocalSigner.open(stolen.folder / "keys")
        await Sequencer(check.log.store, signer, StandingClock(NOW), ORIGIN).round()
        newest = await check.log.store.log_published()
    true = tlog.read_signed_head(stolen.victim.heads[stolen.victim.size])[0]
    assert newest is not None
    assert tlog.read_signed_head(newest.note)[0] == true
    assert await stolen.findings(*kept) == []
