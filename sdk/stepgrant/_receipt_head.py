"""The run head: the broker's signature over a run's whole chain, without the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stepgrant._keys import JoseError, VerifyingKey
from stepgrant._receipt_entries import Event
from stepgrant._receipt_errors import HeadInvalid
from stepgrant.canonical import CanonicalError, JsonValue, b64u_decode, dumps

ALGORITHM: Final = "EdDSA"
_VERSION: Final = 1
_CONTEXT: Final = b"stepgrant run head v1\x00"
_HEAD: Final = frozenset({"tenant", "run", "seq", "hash", "ts", "signature"})
_SIGNATURE: Final = frozenset({"kid", "alg", "value"})


def head_bytes(*, tenant: str, run: str, seq: int, entry_hash: str, ts: int) -> bytes:
    """What is signed for a run's head: `seq` entries, the last with this hash, at `ts` (ms)."""
    head: JsonValue = {"v": _VERSION, "tenant": tenant, "run": run, "seq": seq, "hash": entry_hash, "ts": ts}
    return _CONTEXT + dumps(head)


def check_head(
    head: JsonValue, events: tuple[Event, ...], known: Mapping[str, VerifyingKey], tenant: str, run: str
) -> tuple[str, int]:
    """Who signed the head (kid), and when (ms). Raises `HeadInvalid`."""
    if not isinstance(head, dict) or head.keys() != _HEAD:
        raise HeadInvalid("the head has not its members", reason="head_malformed")
    signature, ts = head["signature"], head["ts"]
    if not isinstance(signature, dict) or signature.keys() != _SIGNATURE or signature["alg"] != ALGORITHM:
        raise HeadInvalid(f"the signature is not {ALGORITHM} with kid and value", reason="head_malformed")
    kid, value = signature["kid"], signature["value"]
    if not isinstance(kid, str) or not isinstance(value, str) or not isinstance(ts, int) or isinstance(ts, bool):
        raise HeadInvalid("the head's members are of the wrong type", reason="head_malformed")
    if (head["tenant"], head["run"], head["seq"]) != (tenant, run, len(events)):
        raise HeadInvalid(f"the head is not about these {len(events)} entries", reason="head_foreign")
    if head["hash"] != events[-1].hash:
        raise HeadInvalid("the head is about other entries", reason="wrong_head", position=len(events) - 1)
    if ts < events[-1].ts:
        raise HeadInvalid("the head was signed before its last entry was written", reason="time_goes_back")
    if kid not in known:
        raise HeadInvalid(f"signed by a key that is not among yours (kid {kid[:64]!r})", reason="unknown_key")
    signed = head_bytes(tenant=tenant, run=run, seq=len(events), entry_hash=events[-1].hash, ts=ts)
    try:
        known[kid].verify(signed, b64u_decode(value))
    except (JoseError, CanonicalError):
        raise HeadInvalid("the signature is not by this key over this head", reason="bad_signature") from None
    return kid, ts
