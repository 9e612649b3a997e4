"""`Store.load` on one connection inside one transaction: what a use case needs of a run, in one consistent view.

Rules:
* Every read names the tenant. A run that is named twice (by id and by grant, say) must be one and the same, else there
  is none: what the caller says of a run never widens what it sees.
* A stored answer whose time is over does not exist.
* Only the longest-lived grants of older epochs are read, `LIVE_MAX` at most: `domain.grants.live_effectful` looks for
  the one that lives longest. So the cost of `begin` is bounded however fast the run was before its resume.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final, TypeVar

from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.grants import is_open
from stepgrant_broker.domain.state import Approval, Grant, Run, Step, View
from stepgrant_broker.domain.writes import ChainKey, Loaded, Query, StoredAnswer, Tenant
from stepgrant_broker.store import rows
from stepgrant_broker.store.queries import Queries
from stepgrant_broker.store.statements import sqlite_dialect

T = TypeVar("T")

SQL: Final = Queries(sqlite_dialect())
LIVE_MAX: Final = 16


def load(db: sqlite3.Connection, query: Query, now: int) -> Loaded:
    """What the query names. Raises `RowDamaged`."""
    return _Loader(db, query, now).load()


def one(db: sqlite3.Connection, codec: rows.Codec[T], sql: str, **binds: object) -> T | None:
    """The value of the first row, or `None`."""
    row = db.execute(sql, binds).fetchone()
    return None if row is None else codec.decode(row)


def every(db: sqlite3.Connection, codec: rows.Codec[T], sql: str, **binds: object) -> list[T]:
    """The values of all rows."""
    return [codec.decode(row) for row in db.execute(sql, binds)]


def tenant_of(db: sqlite3.Connection, tenant: str) -> Tenant:
    """The tenant; one that wrote nothing yet stands at its beginning."""
    return one(db, rows.TENANT, SQL.tenant, id=tenant) or Tenant(tenant, 0, GENESIS, 0)


class _Loader:
    """One load; collects what belongs together."""

    def __init__(self, db: sqlite3.Connection, query: Query, now: int) -> None:
        self._db = db
        self._query = query
        self._now = now
        self._tenant = query.tenant
        self._run: Run | None = None
        self._lease = 0
        self._steps: dict[str, Step] = {}
        self._grants: dict[str, Grant] = {}
        self._approvals: dict[str, Approval] = {}
        self._payloads: dict[str, Payload] = {}

    def load(self) -> Loaded:
        query, tenant = self._query, self._tenant
        names = [name for name in (query.step, *query.also) if name is not None]
        self._find_run(names)
        run = self._run
        view = View()
        if run is not None:
            self._load_run(run, names)
            epochs = self._every(rows.EPOCH, SQL.epochs, run=run.id) if self._wants_epochs() else []
            view = View(run, self._steps, self._grants, self._approvals, {epoch.epoch: epoch for epoch in epochs})
        tenant_key = self._chain_key("")
        answer = self._answer()
        return Loaded(
            now=self._now,
            tenant=tenant_of(self._db, tenant),
            view=view,
            lease_until=self._lease,
            key=tenant_key if run is None else self._chain_key(run.id),
            tenant_key=tenant_key,
            quarantines=tuple(self._every(rows.QUARANTINE, SQL.quarantines, now=self._now)),
            answer=answer,
            payloads=self._payloads,
        )

    def _one(self, codec: rows.Codec[T], sql: str, **binds: object) -> T | None:
        return one(self._db, codec, sql, tenant=self._tenant, **binds)

    def _every(self, codec: rows.Codec[T], sql: str, **binds: object) -> list[T]:
        return every(self._db, codec, sql, tenant=self._tenant, **binds)

    def _wants_epochs(self) -> bool:
        return self._query.unfinished or self._query.run_key is not None

    def _chain_key(self, run: str) -> ChainKey | None:
        return self._one(rows.CHAIN_KEY, SQL.chain_key, run=run)

    def _find_run(self, names: list[str]) -> None:
        """Find the run that all names of the query agree on; a named grant or approval brings its step along."""
        query = self._query
        found: list[str | None] = [] if query.run is None else [query.run]
        if query.grant is not None:
            grant = self._one(rows.GRANT, SQL.grant, jti=query.grant)
            found.append(None if grant is None else grant.run)
            if grant is not None:
                self._grants[grant.jti] = grant
                names.append(grant.step)
        if query.approval is not None:
            approval = self._one(rows.APPROVAL, SQL.approval, id=query.approval)
            found.append(None if approval is None else approval.run)
            if approval is not None:
                self._approvals[approval.id] = approval
                names.append(approval.step)
        row: tuple[Any, ...] | None = None
        if query.run_key is not None:
            agent, key = query.run_key
            row = self._db.execute(SQL.run_by_key, {"tenant": self._tenant, "agent": agent, "key": key}).fetchone()
        elif found and found[0] is not None:
            row = self._db.execute(SQL.run, {"tenant": self._tenant, "id": found[0]}).fetchone()
        if row is None:
            return
        run = rows.RUN.decode(row)
        if all(name == run.id for name in found):
            self._run, self._lease = run, row[-1]

    def _load_run(self, run: Run, names: list[str]) -> None:
        query = self._query
        if query.unfinished:
            for step in self._every(rows.STEP, SQL.steps_unfinished, run=run.id):
                self._steps[step.key] = step
            self._keep_grants(self._every(rows.GRANT, SQL.grants_open, run=run.id))
            self._keep_grants(self._every(rows.GRANT, SQL.grants_of_unfinished, run=run.id))
            self._keep_approvals(self._every(rows.APPROVAL, SQL.approvals_unconsumed, run=run.id))
            self._load_spent_approvals()
        for name in dict.fromkeys(names):
            self._load_step(run, name)
        if run.epoch > 1 and (query.unfinished or query.step is not None):
            live = {"run": run.id, "epoch": run.epoch, "now": self._now, "limit": LIVE_MAX}
            self._keep_grants(self._every(rows.GRANT, SQL.grants_live, **live))
        self._reveal(run)

    def _load_spent_approvals(self) -> None:
        """The approvals that open grants have spent: they come back if such a grant turns out to be unused."""
        for grant in self._grants.values():
            if grant.approval is not None and grant.approval not in self._approvals and is_open(grant):
                approval = self._one(rows.APPROVAL, SQL.approval, id=grant.approval)
                self._keep_approvals([] if approval is None else [approval])

    def _load_step(self, run: Run, name: str) -> None:
        step = self._one(rows.STEP, SQL.step, run=run.id, key=name)
        if step is not None:
            self._steps[name] = step
            self._keep_grants(self._every(rows.GRANT, SQL.grants_of_step, run=run.id, step=name))
        # Approvals are looked for without a step too: `~resume` is a name only.
        self._keep_approvals(self._every(rows.APPROVAL, SQL.approvals_of_step, run=run.id, step=name))

    def _keep_grants(self, grants: list[Grant]) -> None:
        self._grants.update((grant.jti, grant) for grant in grants)

    def _keep_approvals(self, approvals: list[Approval]) -> None:
        self._approvals.update((approval.id, approval) for approval in approvals)

    def _reveal(self, run: Run) -> None:
        """Read the payloads that come along (`Query`), and for an approval the digest that people are shown."""
        query = self._query
        wanted = [run.principal_c]
        if query.run_key is not None:
            wanted.append(run.input_c)
        step = self._steps.get(query.step or "")
        if step is not None:
            wanted += [step.result_c, step.error_c]
        approval = self._approvals.get(query.approval or "")
        if approval is not None:
            wanted.append(approval.binding_c)
            asked = self._steps.get(approval.step)
            wanted += [] if asked is None else [asked.digest_c, asked.resource_c]
        for c in wanted:
            self._keep_payload(run.id, c)

    def _keep_payload(self, chain: str, c: str | None) -> None:
        if c is not None and c not in self._payloads:
            payload = self._one(rows.PAYLOAD, SQL.payload, chain=chain, c=c)
            if payload is not None:
                self._payloads[c] = payload

    def _answer(self) -> StoredAnswer | None:
        if self._query.answer is None:
            return None
        answer = self._one(rows.ANSWER, SQL.answer, scope=self._query.answer, now=self._now)
        if answer is not None:
            self._keep_payload(answer.run, answer.answer_c)
        return answer
