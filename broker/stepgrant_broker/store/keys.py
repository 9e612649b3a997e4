"""The statements of the registry of signing keys: what is there stays, and only what is open yet is filled in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table as CoreTable
from sqlalchemy import bindparam, literal_column, select, update

from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Plan, ask, every
from stepgrant_broker.store.statements import ENTRIES, by_index, columns_of, compile_for
from stepgrant_broker.store.tables.base import ABOUT_KEYS

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from stepgrant_broker.domain.keys import SigningKey
    from stepgrant_broker.store.forgetting import Run


class KeyStatements:
    """The statements, compiled for a dialect. `insert`: the dialect's own."""

    def __init__(self, dialect: Dialect, insert: Callable[[CoreTable], Any]) -> None:
        table = rows.SIGNING_KEY.table
        self.all = compile_for(
            dialect, select(*columns_of(rows.SIGNING_KEY)).order_by(table.c.purpose, table.c.number, table.c.kid)
        )
        self.seen = compile_for(dialect, insert(table).on_conflict_do_nothing(), rows.SIGNING_KEY.bound)
        older = update(table).where(
            table.c.purpose == bindparam("w_purpose"),
            table.c.number < bindparam("w_number"),
            table.c.until.is_(None),
        )
        self.end = compile_for(dialect, older, ["until"])
        mine = update(table).where(
            table.c.purpose == bindparam("w_purpose"),
            table.c.kid == bindparam("w_kid"),
            table.c.revoked_at.is_(None),
        )
        self.revoke = compile_for(dialect, mine, ["revoked_at", "revoked_size"])
        about = (
            select(ENTRIES.c.data)
            .where(literal_column(ABOUT_KEYS), ENTRIES.c.tenant == bindparam("tenant"))
            .where(ENTRIES.c.chain == literal_column("''"))
            .order_by(ENTRIES.c.seq)
        )
        self.entries = compile_for(dialect, by_index(about, ENTRIES, "ix_entries_keys"))


def registered(sql: KeyStatements) -> Plan[tuple[SigningKey, ...]]:
    """All keys."""
    return (yield from every(rows.SIGNING_KEY, ask(sql.all)))


def entries(sql: KeyStatements, tenant: str) -> Plan[tuple[bytes, ...]]:
    """What a tenant's own chain says of keys."""
    (found,) = yield [ask(sql.entries, tenant=tenant)]
    return tuple(bytes(data) for (data,) in found)


def seen(sql: KeyStatements, run: Run, key: SigningKey) -> None:
    """Register a key that is not there, and end the older ones."""
    places = dict(zip(rows.SIGNING_KEY.bound, rows.SIGNING_KEY.places(key), strict=True))
    added, _ = run(sql.seen, sql.seen.places(places))
    if added == 1:
        run(sql.end, sql.end.places({"until": key.signs_from, "w_purpose": key.purpose, "w_number": key.number}))


def revoked(sql: KeyStatements, run: Run, purpose: str, kid: str, at: int, size: int) -> bool:
    """Revoke a key that is there and is not revoked; whether it was so."""
    binds = {"revoked_at": at, "revoked_size": size, "w_purpose": purpose, "w_kid": kid}
    changed, _ = run(sql.revoke, sql.revoke.places(binds))
    return changed == 1
