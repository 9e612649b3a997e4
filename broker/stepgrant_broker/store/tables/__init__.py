"""The tables, as SQLModel classes. They never leave the package: the ports speak in domain values (`rows.py`).

Rules:
* Every table has the tenant in its key; `proofs` has none, because its id is global, nor has the log, in which there
  are only hashes of hashes, nor have the installation's signing keys. No query may leave the tenant out.
* Keys are natural, and no table has an integer key: SQLite does not number a BIGINT, PostgreSQL does not reuse numbers.
* Types are those that SQLite and PostgreSQL share. Times are BIGINT milliseconds; mappings and tuples are JSON text.
* Every constraint has a name (`base.NAMING`): SQLite can change a table only by rebuilding it, and needs the names.
* Databases are built by `migrations/`, never from these classes; a test shows that both give the same schema.
* What a column derives from the domain's rules (`done`, `is_open`, `live_until`) is there for an index only. It is
  computed in `rows.py` when the row is written; whoever changes such a rule writes a migration that recomputes it.
"""

from __future__ import annotations

from stepgrant_broker.store.tables.base import METADATA, Table
from stepgrant_broker.store.tables.keys import SigningKeyRow
from stepgrant_broker.store.tables.ledger import AnswerRow, ChainKeyRow, EntryRow, PayloadRow, ProofRow, TenantRow
from stepgrant_broker.store.tables.log import LogHeadRow, LogRow, LogTileRow
from stepgrant_broker.store.tables.people import OperatorRow, PolicyRow, QuarantineRow, SecretRow, WorkloadRow
from stepgrant_broker.store.tables.runs import ApprovalRow, EpochRow, GrantRow, RunRow, StepRow

__all__ = [
    "METADATA",
    "AnswerRow",
    "ApprovalRow",
    "ChainKeyRow",
    "EntryRow",
    "EpochRow",
    "GrantRow",
    "LogHeadRow",
    "LogRow",
    "LogTileRow",
    "OperatorRow",
    "PayloadRow",
    "PolicyRow",
    "ProofRow",
    "QuarantineRow",
    "RunRow",
    "SecretRow",
    "SigningKeyRow",
    "StepRow",
    "Table",
    "TenantRow",
    "WorkloadRow",
]
