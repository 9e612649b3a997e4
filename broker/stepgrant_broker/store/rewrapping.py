"""The statements and plans behind `domain.rewrapping`.

Rules:
* No index finds what is under an older key: it is needed once in years, and every commit would have to keep one.
* A row is only replaced while it is what was read (its nonce and bytes), so that an erasure in between wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, select, tuple_, update
from sqlalchemy import Table as CoreTable

from stepgrant_broker.domain.commitments import Kept
from stepgrant_broker.domain.ports import SecretRecord, Wrapped
from stepgrant_broker.domain.writes import ChainKey
from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Plan, ask
from stepgrant_broker.store.statements import Text, at_most, columns_of, compile_for
from stepgrant_broker.store.tables.ledger import ERASED

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from stepgrant_broker.domain.rewrapping import Place
    from stepgrant_broker.store.forgetting import Run
    from stepgrant_broker.store.sealing import Clear

WRAPPED: Final = ("key_id", "nonce", "ciphertext")
GONE: Final = ERASED["key_id"]


class RewrapStatements:
    """The statements, compiled for a dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.keys = self._others(rows.CHAIN_KEY)
        self.secrets = self._others(rows.SECRET, rows.SECRET.table.c.removed_at.is_(None))
        self.rewrap_key = self._rewrap(rows.CHAIN_KEY.table)
        self.rewrap_secret = self._rewrap(rows.SECRET.table)
        payloads = rows.PAYLOAD.table
        names = ("tenant", "chain", "c")
        beyond = tuple_(*(payloads.c[name] for name in names)) > tuple_(*(bindparam(f"after_{name}") for name in names))
        query = select(payloads.c.tenant, payloads.c.chain, *columns_of(rows.PAYLOAD)).where(beyond)
        # All payloads pass by, a page at a time: those in clear have no index.
        self.payloads = compile_for(dialect, at_most(query.order_by(*(payloads.c[name] for name in names)), "limit"))
        mine = [payloads.c[name] == bindparam(f"w_{name}") for name in names]
        clear = update(payloads).where(*mine, payloads.c.key_id.is_(None))
        self.seal = compile_for(dialect, clear, ("body", "key_id", "nonce"))
        keys = rows.CHAIN_KEY.table
        of = select(*columns_of(rows.CHAIN_KEY)).where(
            keys.c.tenant == bindparam("tenant"), keys.c.run == bindparam("run"), keys.c.key_id != bindparam("erased")
        )
        self.key = compile_for(dialect, of)

    def _others(self, codec: rows.Codec[Any], *also: ColumnElement[bool]) -> Text:
        table, key = codec.table, [column.name for column in codec.table.primary_key.columns]
        beyond = tuple_(*(table.c[name] for name in key)) > tuple_(*(bindparam(f"after_{name}") for name in key))
        other = and_(table.c.key_id != bindparam("key_id"), table.c.key_id != bindparam("erased"))
        query = select(*columns_of(codec)).where(beyond, other, *also)
        return compile_for(self._dialect, at_most(query.order_by(*(table.c[name] for name in key)), "limit"))

    def _rewrap(self, table: CoreTable) -> Text:
        key = [column.name for column in table.primary_key.columns]
        same = [table.c[name] == bindparam(f"w_{name}") for name in (*key, *WRAPPED)]
        return compile_for(self._dialect, update(table).where(*same), WRAPPED)


def chain_keys(sql: RewrapStatements, key_id: str, after: Place, limit: int) -> Plan[tuple[ChainKey, ...]]:
    """Keys of chains that are wrapped by another key."""
    tenant, run = after
    (found,) = yield [ask(sql.keys, after_tenant=tenant, after_run=run, key_id=key_id, erased=GONE, limit=limit)]
    return tuple(map(rows.CHAIN_KEY.decode, found))


def secrets(sql: RewrapStatements, key_id: str, after: Place, limit: int) -> Plan[tuple[SecretRecord, ...]]:
    """Static secrets that are wrapped by another key."""
    tenant, name = after
    (found,) = yield [ask(sql.secrets, after_tenant=tenant, after_name=name, key_id=key_id, erased=GONE, limit=limit)]
    return tuple(map(rows.SECRET.decode, found))


def rewrap(sql: RewrapStatements, run: Run, pairs: Sequence[tuple[ChainKey | SecretRecord, Wrapped]]) -> int:
    """Replace what is still the same."""
    done = 0
    for old, new in pairs:
        was = {f"w_{name}": getattr(old.wrapped, name) for name in WRAPPED}
        binds = {**was, **{name: getattr(new, name) for name in WRAPPED}, "w_tenant": old.tenant}
        if isinstance(old, ChainKey):
            touched, _ = run(sql.rewrap_key, sql.rewrap_key.places({**binds, "w_run": old.run}))
        else:
            touched, _ = run(sql.rewrap_secret, sql.rewrap_secret.places({**binds, "w_name": old.name}))
        done += touched
    return done


def seal_clear(sql: RewrapStatements, run: Run, seal: Clear, after: Place, limit: int) -> tuple[int, Place | None]:
    """Seal what rests in clear among the next payloads."""
    binds = dict(zip(("after_tenant", "after_chain", "after_c"), after, strict=True))
    _, found = run(sql.payloads, sql.payloads.places({**binds, "limit": limit}))
    done = 0
    for (tenant, chain), some in groupby(found, key=lambda row: (row[0], row[1])):
        clear = [kept for kept in (rows.PAYLOAD.decode(row[2:]) for row in some) if kept.key_id is None]
        if clear:
            done += _seal(sql, run, seal, (tenant, chain), clear)
    return done, (found[-1][0], found[-1][1], found[-1][2]) if len(found) == limit else None


def _seal(sql: RewrapStatements, run: Run, seal: Clear, place: tuple[str, str], clear: Sequence[Kept]) -> int:
    tenant, chain = place
    _, keys = run(sql.key, sql.key.places({"tenant": tenant, "run": chain, "erased": GONE}))
    if not keys:
        return 0
    sealed = seal.sealed(rows.CHAIN_KEY.decode(keys[0]), seal.opened(None, clear).values())
    done = 0
    for kept in sealed:
        binds = {"w_tenant": tenant, "w_chain": chain, "w_c": kept.c}
        moved = {"body": kept.body, "key_id": kept.key_id, "nonce": kept.nonce}
        touched, _ = run(sql.seal, sql.seal.places({**binds, **moved}))
        done += touched
    return done
