"""The columns beside an entry's bytes, which nothing hashes: they must say what the bytes say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from stepgrant_broker.ledger import findings
from stepgrant_broker.ledger.findings import Code, Finding

if TYPE_CHECKING:
    from stepgrant_broker.domain.scanning import RawEntry


class _Said(msgspec.Struct):
    """What an entry's bytes say of the columns beside them. Members of other types are told by the chain's reader."""

    tenant: Any = None
    run: Any = None
    seq: Any = None
    type: Any = None
    step: Any = None
    ts: Any = None


_read = msgspec.json.Decoder(_Said).decode


def beside(entry: RawEntry, digest: bytes) -> Iterator[Finding]:
    """What is wrong beside bytes with this SHA-256. Bytes that cannot be read are told by their chain."""
    try:
        said = _read(entry.data)
    except msgspec.MsgspecError:
        return
    pairs = {
        "tenant": (entry.tenant, said.tenant),
        "chain": (entry.chain, said.run or ""),
        "seq": (entry.seq, said.seq),
        "type": (entry.type, said.type),
        "step": (entry.step, said.step),
        "ts": (entry.ts, said.ts),
        "hash": (entry.hash, digest),
    }
    wrong = [name for name, (stored, spoken) in pairs.items() if stored != spoken]
    if wrong:
        what = f"{', '.join(wrong)} beside its bytes is not what they say"
        yield Finding(Code.ENTRY_DIFFERS, findings.entry(entry.tenant, entry.run, entry.seq), what, entry.seq)
