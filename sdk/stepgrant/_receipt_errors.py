"""What is wrong with a receipt, one class per part of it. Public as `stepgrant.receipt`; all are `ReceiptError`."""

from __future__ import annotations

from stepgrant._verification_errors import ReceiptError


class ReceiptUnreadable(ReceiptError):
    """Not a receipt: not JSON, not in its one canonical form, or not with the members of this version."""


class EntryInvalid(ReceiptError):
    """One entry cannot be read as an entry of its version. `position` is its place in the receipt."""


class ChainBroken(ReceiptError):
    """An entry was changed, removed, added or moved: it does not follow the one before it."""


class HeadInvalid(ReceiptError):
    """The signed head is not signed by a known key, or is about other entries."""


class DisclosureInvalid(ReceiptError):
    """A disclosed value is not what an entry commits to."""


class KeysUnreadable(ReceiptError):
    """The public keys to verify with cannot be read."""


class KeyRevoked(ReceiptError):
    """Signed with a key that was revoked, and nothing shows that it was signed before: ask for a new receipt."""


class LogProofInvalid(ReceiptError):
    """An entry is not where the receipt says it stands in the log."""


class PolicyTextInvalid(ReceiptError):
    """A policy's text is not the one that decisions were made by."""


class NotInReceipt(ReceiptError):
    """What was asked for is not in this receipt; nothing is said about whether it exists."""
