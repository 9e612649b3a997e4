"""Whatever stands in a database, a check of it ends, and with findings: SQLite keeps any value in any column."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from security.tamper.stolen import Stolen, steal
from security.tamper.victim import Victim
from stepgrant_broker.store.tables import METADATA

SIZE: Final = 40
RUBBISH: Final[tuple[object, ...]] = (
    b"", b"\xff\xfe", "", "[]", "{", "null", "\x00", "sha-256:", "é" * 300, 0, -1, 2**62, 1.5, None,
)  # fmt: skip
UNHASHED: Final = {
    "proofs", "answers", "signing_keys.since",
    "runs.lease_until", "tenants.guard", "payloads.expires_at", "log_heads.ts", "log.ts", "log.origin",
    "secrets.key_id", "secrets.nonce", "secrets.ciphertext", "secrets.removed_at", "policies.text",
}  # fmt: skip
"""What no entry speaks of: replay memory, leases, guards, secrets, and how long a stored answer lasts."""


async def test_a_check_of_rubbish_ends_with_findings(victim: Victim, tmp_path: Path) -> None:
    await put_rubbish(victim, tmp_path, SIZE, random.Random(6))


async def put_rubbish(victim: Victim, folder: Path, size: int, dice: random.Random) -> None:
    """So many databases, each with rubbish in one column of one of its rows."""
    places = [
        (table.name, column.name)
        for table in METADATA.sorted_tables
        for column in table.columns
        if table.name not in UNHASHED and f"{table.name}.{column.name}" not in UNHASHED
    ]
    for number in range(size):
        table, column = dice.choice(places)
        value = dice.choice(RUBBISH)
        stolen = steal(victim, "now", folder / str(number))
        changed = _put(stolen, table, column, value)
        found = await stolen.findings()
        assert bool(found) == changed, (table, column, value, [str(one) for one in found])


def _put(stolen: Stolen, table: str, column: str, value: object) -> bool:
    """Put it there; false where the database refuses, or where it was there already."""
    keys = [one.name for one in METADATA.tables[table].primary_key]
    names = ", ".join(f'"{name}"' for name in [column, *keys])
    before, *key = stolen.look(f"SELECT {names} FROM {table} LIMIT 1")[0]  # noqa: S608 - our own tables
    where = " AND ".join(f'"{name}" = :key{number}' for number, name in enumerate(keys))
    sql = f'UPDATE OR IGNORE {table} SET "{column}" = :value WHERE {where}'  # noqa: S608 - as above
    binds = {f"key{number}": part for number, part in enumerate(key)}
    return stolen.do(sql, value=value, **binds) == 1 and before != value
