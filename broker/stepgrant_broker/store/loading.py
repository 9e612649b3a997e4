"""`Store.load` as a plan: what a use case needs of a run, in one consistent view.

Rules:
* Every read names the tenant. A run that is named twice (by id and by grant, say) must be one and the same, else there
  is none: what the caller says of a run never widens what it sees.
* A stored answer whose time is over does not exist.
* Only the longest-lived grants of older epochs are read, `LIVE_MAX` of a kind at most: `domain.grants.live_effectful`
  looks for the one that lives longest. So the cost of `begin` is bounded however fast the run was before its resume.
* Of the steps that are sought by their action the oldest few are read: the rules take the oldest.
* What the first statement shows to be empty is not asked for again: a new step costs one statement.
* A call that names a step and has no answer to be looked up speaks of a step that is there. Its grants are asked for
  with the first statement: where more than one is needed, the view begins before the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from stepgrant_broker.domain.commitments import Payload
from stepgrant_broker.domain.entries import GENESIS
from stepgrant_broker.domain.grants import is_open
from stepgrant_broker.domain.state import Approval, Epoch, Grant, Run, Step, View
from stepgrant_broker.domain.writes import ChainKey, Loaded, Quarantine, Query, StoredAnswer, Tenant
from stepgrant_broker.store import rows
from stepgrant_broker.store.asking import Ask, Found, Plan, ask, one
from stepgrant_broker.store.queries import Queries
from stepgrant_broker.store.sealing import Clear

LIVE_MAX: Final = 16
SOUGHT_MAX: Final = 4
Keep: TypeAlias = Callable[[Found], None]


def load(sql: Queries, query: Query, now: int | None, seal: Clear) -> Plan[Loaded]:
    """What the query names, at this time, or at the database's. Raises `RowDamaged`, `PayloadDamaged`."""
    return _Loader(sql, query, now, seal).load()


class _Loader:
    """One load; collects what belongs together."""

    def __init__(self, sql: Queries, query: Query, now: int | None, seal: Clear) -> None:
        self._sql = sql
        self._query = query
        self._given = now
        self._seal = seal
        self._now = 0
        self._tenant: Tenant | None = None
        self._keys: dict[str, ChainKey] = {}
        self._answer: StoredAnswer | None = None
        self._run: Run | None = None
        self._lease = 0
        self._names = dict.fromkeys(query.also if query.step is None else (query.step, *query.also))
        self._has_approvals = self._has_quarantines = False
        self._expected = query.run is not None and query.step is not None and query.answer is None
        self._steps: dict[str, Step] = {}
        self._grants: dict[str, Grant] = {}
        self._approvals: dict[str, Approval] = {}
        self._epochs: dict[int, Epoch] = {}
        self._quarantines: tuple[Quarantine, ...] = ()
        self._payloads: dict[str, Payload] = {}
        self._asked: set[str] = set()

    def load(self) -> Plan[Loaded]:
        query = self._query
        found: list[str | None] = [] if query.run is None else [query.run]
        if query.grant is not None or query.approval is not None:
            yield from self._named(found)
        yield from self._head(found)
        asked = self._questions()
        if asked:
            answers = yield [question for question, _ in asked]
            for (_, keep), answer in zip(asked, answers, strict=True):
                keep(answer)
        later = self._later()
        if later:
            answers = yield [question for question, _ in later]
            for (_, keep), answer in zip(later, answers, strict=True):
                keep(answer)
        return Loaded(
            now=self._now,
            tenant=self._tenant or Tenant(query.tenant, 0, GENESIS, 0),
            view=self._view(),
            lease_until=self._lease,
            key=self._keys.get("" if self._run is None else self._run.id),
            tenant_key=self._keys.get(""),
            quarantines=self._quarantines,
            answer=self._answer,
            payloads=self._payloads,
        )

    def _view(self) -> View:
        if self._run is None:
            return View()
        return View(self._run, self._steps, self._grants, self._approvals, self._epochs)

    def _named(self, found: list[str | None]) -> Plan[None]:
        """Adds the runs that the named grant and approval are of; each brings its step along."""
        query, tenant = self._query, self._query.tenant
        if query.grant is not None:
            grant = yield from one(rows.GRANT, ask(self._sql.grant, tenant=tenant, jti=query.grant))
            found.append(None if grant is None else grant.run)
            if grant is not None:
                self._grants[grant.jti] = grant
                self._names[grant.step] = None
        if query.approval is not None:
            approval = yield from one(rows.APPROVAL, ask(self._sql.approval, tenant=tenant, id=query.approval))
            found.append(None if approval is None else approval.run)
            if approval is not None:
                self._approvals[approval.id] = approval
                self._names[approval.step] = None

    def _head(self, found: list[str | None]) -> Plan[None]:
        """The first statement: everything of which there is one. A run that a name does not mean is none."""
        query = self._query
        binds: dict[str, Any] = {"tenant": query.tenant, "step": query.step, "scope": query.answer, "now": self._given}
        if query.run_key is not None:
            head = self._sql.by_key
            binds["agent"], binds["key"] = query.run_key
        else:
            head = self._sql.by_id
            binds["id"] = found[0] if found else None
        first = [head.ask(**binds)]
        if self._expected:
            first.append(self._about(self._sql.grants_of_step, run=query.run, step=query.step))
        (row,), *grants = yield first
        self._now = row[0]
        self._tenant = head.part(row, "tenant")
        self._answer = head.part(row, "answer")
        self._keep_key(head.part(row, "tenant_key", query.tenant, ""))
        lease, has_approvals, self._has_quarantines = head.rest(row)
        run: Run | None = head.part(row, "run")
        if run is None or found.count(run.id) != len(found):
            return
        self._run, self._lease, self._has_approvals = run, lease, has_approvals
        self._keep_key(head.part(row, "key", query.tenant, run.id))
        step: Step | None = head.part(row, "step")
        if step is not None:
            self._steps[step.key] = step
        for some in grants:
            self._keep_grants(some)

    def _questions(self) -> list[tuple[Ask, Keep]]:
        """Everything that the first statement showed to be there, and what has not been asked for."""
        asked: list[tuple[Ask, Keep]] = []
        if self._has_quarantines:
            asked.append((self._about(self._sql.quarantines, now=self._given), self._keep_quarantines))
        answer = self._answer
        if answer is not None:
            asked += self._key_of(answer.run)
            asked += self._payload(answer.run, answer.answer_c)
        if self._run is not None:
            for name in self._names:
                asked += self._of_step(self._run, name)
            if self._query.unfinished:
                asked += self._unfinished(self._run)
            if self._query.unfinished or self._query.run_key is not None:
                asked.append((self._about(self._sql.epochs, run=self._run.id), self._keep_epochs))
            if self._run.epoch > 1 and (self._query.unfinished or self._query.step is not None):
                asked += self._live(self._run)
            asked += self._revealed(self._run)
            asked += self._sought(self._run)
        return asked

    def _later(self) -> list[tuple[Ask, Keep]]:
        """What the answers made known, each for one kind of query."""
        query = self._query
        asked = self._spent_approvals() if query.unfinished else []
        if query.approval is not None:
            asked += self._revealed_by_approval()
        if query.sought is not None:
            asked += self._of_sought()
        return asked

    def _about(self, text: Any, **binds: object) -> Ask:  # noqa: ANN401 - a Text
        return ask(text, tenant=self._query.tenant, **binds)

    def _of_step(self, run: Run, name: str) -> list[tuple[Ask, Keep]]:
        """A step's grants and approvals. Approvals are looked for without a step too: `~resume` is a name only."""
        asked: list[tuple[Ask, Keep]] = []
        mine = name == self._query.step
        if not mine:
            asked.append((self._about(self._sql.step, run=run.id, key=name), self._keep_steps))
        if not mine or (name in self._steps and not self._expected):
            asked.append((self._about(self._sql.grants_of_step, run=run.id, step=name), self._keep_grants))
        if not mine or self._has_approvals:
            asked.append((self._about(self._sql.approvals_of_step, run=run.id, step=name), self._keep_approvals))
        return asked

    def _unfinished(self, run: Run) -> list[tuple[Ask, Keep]]:
        sql = self._sql
        return [
            (self._about(sql.steps_unfinished, run=run.id), self._keep_steps),
            (self._about(sql.grants_open, run=run.id), self._keep_grants),
            (self._about(sql.grants_of_unfinished, run=run.id), self._keep_grants),
            (self._about(sql.approvals_unconsumed, run=run.id), self._keep_approvals),
        ]

    def _live(self, run: Run) -> list[tuple[Ask, Keep]]:
        """The effectful grants of older epochs that may live, open ones and closed ones."""
        live = {"run": run.id, "epoch": run.epoch, "now": self._now, "limit": LIVE_MAX}
        return [(self._about(self._sql.grants_live, is_open=number, **live), self._keep_grants) for number in (1, 0)]

    def _sought(self, run: Run) -> list[tuple[Ask, Keep]]:
        """The steps that a call may be the same as, or has to wait for."""
        sought, sql = self._query.sought, self._sql
        if sought is None:
            return []
        equal: dict[str, Any] = {
            "run": run.id, "tool": sought.tool, "digest_c": sought.digest_c, "epoch": run.epoch, "limit": SOUGHT_MAX,
        }  # fmt: skip
        asked: list[tuple[Ask, Keep]] = []
        if sought.lost:
            asked.append((self._about(sql.steps_lost, **equal), self._keep_steps))
            asked.append((self._about(sql.steps_called, **{**equal, "limit": 1}), self._keep_steps))
        if sought.doubt:
            asked.append((self._about(sql.steps_in_doubt, **equal, resource_c=sought.resource_c), self._keep_steps))
        return asked

    def _of_sought(self) -> list[tuple[Ask, Keep]]:
        """What belongs to the steps that were found so, in case that the call is one of them."""
        run = self._run
        if run is None:
            return []
        asked: list[tuple[Ask, Keep]] = []
        for step in [step for step in self._steps.values() if step.key not in self._names]:
            asked.append((self._about(self._sql.grants_of_step, run=run.id, step=step.key), self._keep_grants))
            asked.append((self._about(self._sql.approvals_of_step, run=run.id, step=step.key), self._keep_approvals))
            asked += [*self._payload(run.id, step.result_c), *self._payload(run.id, step.error_c)]
        return asked

    def _revealed(self, run: Run) -> list[tuple[Ask, Keep]]:
        """The payloads that come along (`Query`)."""
        wanted = [run.principal_c]
        if self._query.run_key is not None:
            wanted.append(run.input_c)
        step = self._steps.get(self._query.step or "")
        if step is not None:
            wanted += [step.result_c, step.error_c]
        approval = self._approvals.get(self._query.approval or "")
        if approval is not None:
            wanted.append(approval.binding_c)
        return [asked for c in wanted if c is not None for asked in self._payload(run.id, c)]

    def _revealed_by_approval(self) -> list[tuple[Ask, Keep]]:
        """For a named approval also the action and resource that people are shown."""
        approval = self._approvals.get(self._query.approval or "")
        step = None if approval is None else self._steps.get(approval.step)
        if self._run is None or step is None:
            return []
        return [*self._payload(self._run.id, step.digest_c), *self._payload(self._run.id, step.resource_c)]

    def _spent_approvals(self) -> list[tuple[Ask, Keep]]:
        """The approvals that open grants have spent: they come back if such a grant turns out to be unused."""
        if self._run is None:
            return []
        spent = [grant.approval for grant in self._grants.values() if grant.approval is not None and is_open(grant)]
        missing = [name for name in dict.fromkeys(spent) if name not in self._approvals]
        return [(self._about(self._sql.approval, id=name), self._keep_approvals) for name in missing]

    def _payload(self, chain: str, c: str | None) -> list[tuple[Ask, Keep]]:
        if c is None or c in self._asked:
            return []
        self._asked.add(c)
        return [(self._about(self._sql.payload, chain=chain, c=c), lambda found: self._open(chain, found))]

    def _keep_steps(self, found: Found) -> None:
        self._steps.update((step.key, step) for step in map(rows.STEP.decode, found))

    def _keep_grants(self, found: Found) -> None:
        self._grants.update((grant.jti, grant) for grant in map(rows.GRANT.decode, found))

    def _keep_approvals(self, found: Found) -> None:
        self._approvals.update((approval.id, approval) for approval in map(rows.APPROVAL.decode, found))

    def _keep_epochs(self, found: Found) -> None:
        self._epochs.update((epoch.epoch, epoch) for epoch in map(rows.EPOCH.decode, found))

    def _keep_quarantines(self, found: Sequence[Sequence[Any]]) -> None:
        self._quarantines = tuple(map(rows.QUARANTINE.decode, found))

    def _key_of(self, chain: str) -> list[tuple[Ask, Keep]]:
        """The key of a chain that is neither the tenant's nor the run's: of a stored answer that was about another."""
        if not chain or chain in self._keys or (self._run is not None and chain == self._run.id):
            return []
        return [(self._about(self._sql.chain_key, run=chain), self._keep_keys)]

    def _keep_keys(self, found: Found) -> None:
        for row in found:
            self._keep_key(rows.CHAIN_KEY.decode(row))

    def _keep_key(self, key: ChainKey | None) -> None:
        if key is not None:
            self._keys[key.run] = key

    def _open(self, chain: str, found: Found) -> None:
        self._payloads.update(self._seal.opened(self._keys.get(chain), map(rows.PAYLOAD.decode, found)))
