"""A receipt's place in the log: one inclusion proof for each entry, under a signed and cosigned tree head (C2SP).

    log: {checkpoint: text of the signed note, proofs: [{index, hashes: [base64 of 32 bytes, from leaf to root]}]}

A leaf is the 32-byte hash of an entry. Within a run indexes rise with `seq`, so nobody can give two orders of one run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stepgrant import tlog
from stepgrant._receipt_entries import Event
from stepgrant._receipt_errors import KeyRevoked, LogProofInvalid
from stepgrant._receipt_keys import Revoked, Trust
from stepgrant.canonical import CanonicalError, JsonValue, b64u_decode
from stepgrant.merkle import ProofInvalid, leaf_hash, verify_inclusion

_LOG: Final = frozenset({"checkpoint", "proofs"})
_PROOF: Final = frozenset({"index", "hashes"})
MAX_HASHES: Final = 63


@dataclass(frozen=True, slots=True)
class Logged:
    """Where the entries stand: the head's log and size, who cosigned it when (seconds), and each leaf's index."""

    origin: str
    size: int
    root: bytes
    cosigned: Mapping[str, int]
    indexes: tuple[int, ...]
    checkpoint: bytes
    hashes: tuple[tuple[bytes, ...], ...]

    def tlog_proof(self, position: int) -> bytes:
        """The C2SP tlog-proof file of the entry at this place in the receipt, for any other verifier."""
        return tlog.write_proof(self.indexes[position], list(self.hashes[position]), self.checkpoint)


def check_log(
    value: JsonValue,
    events: Sequence[Event],
    trust: Trust,
    policy: tlog.LogPolicy | None,
) -> Logged:
    """The place of these entries.

    Raises `LogProofInvalid`, `NoteInvalid`, `HeadUnreadable`, `WitnessesMissing`, `KeyRevoked`.
    """
    if not isinstance(value, dict) or value.keys() != _LOG:
        raise LogProofInvalid("log has checkpoint and proofs", reason="log_malformed")
    checkpoint, proofs = value["checkpoint"], value["proofs"]
    if not isinstance(checkpoint, str) or not isinstance(proofs, list) or len(proofs) != len(events):
        raise LogProofInvalid("log has a text and one proof for each entry", reason="log_malformed")
    signed = checkpoint.encode()
    head, note = tlog.read_signed_head(signed)
    cosigned = _signed(head, note, trust, policy)
    indexes: list[int] = []
    paths: list[tuple[bytes, ...]] = []
    for position, (event, proof) in enumerate(zip(events, proofs, strict=True)):
        index, hashes = _read(proof, position)
        if indexes and index <= indexes[-1]:
            raise LogProofInvalid("it stands before an earlier entry", reason="log_order", position=position)
        try:
            verify_inclusion(leaf_hash(b64u_decode(event.hash)), index, head.size, hashes, head.root)
        except (ProofInvalid, CanonicalError) as error:
            raise LogProofInvalid(f"it is not in the log ({error})", reason="not_in_log", position=position) from None
        indexes.append(index)
        paths.append(tuple(hashes))
    return Logged(head.origin, head.size, head.root, cosigned, tuple(indexes), signed, tuple(paths))


def _signed(head: tlog.Head, note: tlog.Note, trust: Trust, policy: tlog.LogPolicy | None) -> Mapping[str, int]:
    """Who cosigned, of those that are trusted. Raises `NoteInvalid` unless the log itself signed, `KeyRevoked`."""
    own = {kid: tlog.note_key(head.origin, tlog.ED25519, b64u_decode(key.jwk["x"])) for kid, key in trust.keys.items()}
    times: Mapping[str, int] = {}
    if policy is not None:
        if all(key.name != head.origin for key in policy.logs):
            raise LogProofInvalid(f"the log policy trusts no log {head.origin!r}", reason="other_log")
        times = policy.check(note)
        signed = note.verified(policy.logs)
    else:
        signed = note.verified(own.values())
        if not signed:
            raise tlog.NoteInvalid("the tree head is signed by no key that is among yours", reason="unknown_key")
    over = {own[kid].public: revoked for kid, revoked in trust.revoked.items()}
    if not any(_counts(over.get(key.public), head, times, policy) for key in signed):
        raise KeyRevoked(
            "the tree head is signed with a key that was revoked, and too few of the witnesses that you trust saw it "
            "before; ask for a new receipt (`stepgrant receipt get`), it is signed with the key of now",
            reason="key_revoked",
        )
    return times


def _counts(revoked: Revoked | None, head: tlog.Head, times: Mapping[str, int], policy: tlog.LogPolicy | None) -> bool:
    """True for a signature that a thief of the key cannot have made: witnesses do not sign into the past."""
    if revoked is None:
        return True
    before = {name: seconds for name, seconds in times.items() if 1000 * seconds < revoked.at}
    return head.size <= revoked.size and policy is not None and policy.enough(before)


def _read(proof: JsonValue, position: int) -> tuple[int, list[bytes]]:
    if isinstance(proof, dict) and proof.keys() == _PROOF:
        index, hashes = proof["index"], proof["hashes"]
        if isinstance(index, int) and not isinstance(index, bool) and index >= 0 and isinstance(hashes, list):
            return index, [_hash(one, position) for one in hashes[: MAX_HASHES + 1]]
    raise LogProofInvalid("a proof has an index and at most 63 hashes", reason="log_malformed", position=position)


def _hash(text: JsonValue, position: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != len(leaf_hash(b"")) or base64.b64encode(data).decode("ascii") != text:
        raise LogProofInvalid("a hash is base64 of 32 bytes", reason="log_malformed", position=position)
    return data
