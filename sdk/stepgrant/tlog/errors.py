"""What is wrong with a log's head, tile or proof, one class per part. Public as `stepgrant.tlog`."""

from __future__ import annotations

from stepgrant._verification_errors import ReceiptError


class NoteInvalid(ReceiptError):
    """Not a signed note (C2SP signed-note), or a known key's signature on it does not verify."""


class HeadUnreadable(ReceiptError):
    """A signed note that is no tree head of this log (C2SP tlog-checkpoint)."""


class WitnessesMissing(ReceiptError):
    """Too few of the witnesses that the policy asks for cosigned the head."""


class TlogProofUnreadable(ReceiptError):
    """Not an inclusion proof file (C2SP tlog-proof)."""


class TileInvalid(ReceiptError):
    """A tile, or its path, is not one of C2SP tlog-tiles."""


class LogPolicyInvalid(ReceiptError):
    """The text that says which log and which witnesses to trust cannot be read (C2SP tlog-policy)."""
