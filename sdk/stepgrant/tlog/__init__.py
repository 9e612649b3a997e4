"""The formats of a transparent log (C2SP): signed notes, tree heads, tiles, inclusion proofs, policies, witnessing.

Everything here is offline and pure; it depends on the SDK's base alone.
"""

from stepgrant.tlog.errors import (
    HeadUnreadable,
    LogPolicyInvalid,
    NoteInvalid,
    TileInvalid,
    TlogProofUnreadable,
    WitnessesMissing,
)
from stepgrant.tlog.head import Head, read_head, read_signed_head
from stepgrant.tlog.note import COSIGNATURE, ED25519, Note, NoteKey, NoteSignature, note_key, read_note, read_vkey
from stepgrant.tlog.policy import LogPolicy, Witness, read_log_policy
from stepgrant.tlog.proof import TlogProof, read_proof, write_proof
from stepgrant.tlog.tiles import Tile, node_in, read_path, tile_with, tiles_of
from stepgrant.tlog.witnessing import AddCheckpoint, read_request

__all__ = [
    "COSIGNATURE",
    "ED25519",
    "AddCheckpoint",
    "Head",
    "HeadUnreadable",
    "LogPolicy",
    "LogPolicyInvalid",
    "Note",
    "NoteInvalid",
    "NoteKey",
    "NoteSignature",
    "Tile",
    "TileInvalid",
    "TlogProof",
    "TlogProofUnreadable",
    "Witness",
    "WitnessesMissing",
    "node_in",
    "note_key",
    "read_head",
    "read_log_policy",
    "read_note",
    "read_path",
    "read_proof",
    "read_request",
    "read_signed_head",
    "read_vkey",
    "tile_with",
    "tiles_of",
    "write_proof",
]
