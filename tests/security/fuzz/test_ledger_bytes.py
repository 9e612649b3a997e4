"""6,000 receipts that are almost right: none is believed without the broker's key, and all errors are named ones."""

from __future__ import annotations

from security.fuzz import ledger_bytes

SIZE = 6_000


def test_no_receipt_is_believed_without_the_key_and_no_foreign_error_is_raised() -> None:
    result = ledger_bytes.slice(0, SIZE)

    assert not result.violations
    assert result.counts["receipts"] == SIZE
    assert result.counts["verified, signed"] > 0
    for error in ("ChainBroken", "DisclosureInvalid", "EntryInvalid", "HeadInvalid", "ReceiptUnreadable"):
        assert result.counts[error] > SIZE // 100
