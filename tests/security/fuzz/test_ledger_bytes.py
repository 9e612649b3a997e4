"""50,000 inputs that are almost right: none is believed without a key, and all errors are named ones."""

from __future__ import annotations

import pytest

from security.fuzz import ledger_bytes

SIZE = 50_000
ERRORS = {
    "ChainBroken": 300, "DisclosureInvalid": 80, "EntryInvalid": 1_000, "HeadInvalid": 150, "LogProofInvalid": 100,
    "PolicyTextInvalid": 50, "ReceiptUnreadable": 1_000, "heads: HeadUnreadable": 200, "heads: NoteInvalid": 1_000,
    "keys: KeysUnreadable": 1_000, "paths: TileInvalid": 1_000, "policies: LogPolicyInvalid": 1_000,
    "proofs: HeadUnreadable": 150, "proofs: NoteInvalid": 500, "proofs: TlogProofUnreadable": 500,
    "requests: NoteInvalid": 500, "bundles: TileInvalid": 1_000, "tiles: TileInvalid": 1_000,
}  # fmt: skip
"""How many of each there are at least: fewer, and the inputs no longer reach that reader's refusals."""


@pytest.mark.timeout(300)
def test_nothing_is_believed_without_a_key_and_no_foreign_error_is_raised() -> None:
    result = ledger_bytes.slice(0, SIZE)

    assert not result.violations
    assert (result.counts["inputs"], result.counts["receipts"]) == (SIZE, SIZE // 5)
    assert {name: count for name, count in ERRORS.items() if result.counts[name] < count} == {}
    for kind in ("heads", "keys", "paths", "policies", "proofs", "requests", "bundles", "tiles"):
        assert result.counts[f"{kind}: read"] > SIZE // 100, kind
    assert result.counts["verified, signed"] > SIZE // 100
