"""The one way a use case changes anything: load, decide, commit; again if somebody was faster.

Rules:
* One call, one durable commit; a call that changes nothing but was made by an agent still writes its proof's `jti`.
* A write set that was refused because the run moved is thrown away with its journal, and everything is decided again.
* The first try may rest on what the store remembers. Its commit then compares the guard too, which every change of
  policy, kill switch and enrolment moves; and nobody is refused by a memory: the next try looks.
* A commit whose fate is unknown is never run again: the caller repeats with its Idempotency-Key.
* An error that must be recorded (a denied resume) is raised only after the commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from stepgrant import canonical
from stepgrant_broker.domain.caller import AgentCaller, PersonCaller, Request
from stepgrant_broker.domain.commitments import Committer, Payload
from stepgrant_broker.domain.entries import Head
from stepgrant_broker.domain.errors import (
    DuplicateRequest,
    InvalidProof,
    InvalidRequest,
    PolicyUnavailable,
    RetriesExhausted,
    RunEnded,
    StepgrantFault,
    Unavailable,
)
from stepgrant_broker.domain.holding import refuse_clock_doubt
from stepgrant_broker.domain.journal import By, Journal
from stepgrant_broker.domain.refusals import AnswerTaken, GuardMoved, ProofReplayed, RevisionMoved, VersionMoved
from stepgrant_broker.domain.state import View
from stepgrant_broker.domain.values import Struct, replace
from stepgrant_broker.domain.writes import ChainKey, Loaded, ProofUse, Query, Row, StoredAnswer, Tenant, WriteSet
from stepgrant_broker.usecases.context import Ports, present

T = TypeVar("T")
MAX_KEY = 200


class Change(Struct, Generic[T], frozen=True):
    """What one decision wants written, and what is answered once it is durable.

    `lease_until`: the run's new lease. `guarded`: refuse if the kill switch moved. `raising`: a fault to raise after
    the commit. `stored`: the JSON answer to keep for the Idempotency-Key (`None`: only that the key was used).
    `erase`: commitments whose payloads are dropped with this commit. `destroy`: everything behind the run's
    commitments is, with the key of its chain (`answers_over`: stored answers are left to their own end).
    """

    answer: T
    journal: Journal
    rows: tuple[Row, ...] = ()
    lease_until: int | None = None
    guarded: bool = False
    raise_guard: bool = False
    raising: StepgrantFault | None = None
    stored: dict[str, Any] | None = None
    status: int = 200
    erase: tuple[str, ...] = ()
    destroy: bool = False
    answers_over: bool = False


class Repeat(Struct, Generic[T], frozen=True):
    """The stored answer of an equal call before; nothing is written but the use of the caller's proof."""

    answer: T


def scope_of(tenant: str, caller: str, call: str, target: str, epoch: int | None, key: str) -> str:
    """The name under which an Idempotency-Key is remembered. Raises `InvalidRequest`."""
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise InvalidRequest(f"Idempotency-Key is 1 to {MAX_KEY} printable characters", field="Idempotency-Key")
    parts = [tenant, caller, call, target, epoch, key]
    return hashlib.sha256(canonical.dumps(parts)).hexdigest()


def answered_before(ports: Ports, loaded: Loaded, request: Request) -> dict[str, Any] | None:
    """The stored answer for an equal call.

    Raises `DuplicateRequest` when the body differs, `RunEnded` when the answer was erased with its run.
    """
    known = loaded.answer
    if known is None or known.expires_at <= loaded.now:
        return None
    tenant = ports.committer(present(loaded.tenant_key))
    if known.body_c != tenant.peek("request.body", canonical.digest_bytes(request.body)):
        raise DuplicateRequest("this Idempotency-Key was used with another body", field="Idempotency-Key")
    if known.answer_c is None:
        return None
    if known.answer_c not in loaded.payloads:
        raise RunEnded("what was answered to this Idempotency-Key was erased with its run; that is final")
    value = canonical.loads(loaded.payloads[known.answer_c].body)
    if not isinstance(value, dict):
        raise DuplicateRequest("the stored answer is not readable", field="Idempotency-Key")
    return value


def journal_for(
    ports: Ports,
    loaded: Loaded,
    by: By,
    *,
    view: View | None = None,
    head: Head | None = None,
    key: ChainKey | None = None,
) -> Journal:
    """A journal over what was loaded (or over another chain of the same view). Raises `RunEnded` for an erased run."""
    run = loaded.view.run
    if key is None and run is not None and run.erased_at is not None:
        why = f"the run is {run.state.value}, and its key was destroyed when it was erased; that is final"
        raise RunEnded(why, run=run.id, state=run.state.value)
    return Journal(
        view=view if view is not None else loaded.view,
        head=head or loaded.head(),
        now=loaded.now,
        by=by,
        committer=ports.committer(present(key or loaded.key)),
        random=ports.ids.random,
    )


async def transact(
    ports: Ports,
    query: Query,
    decide: Callable[[Loaded], Awaitable[Change[T] | Repeat[T]]],
    *,
    proof: ProofUse | None = None,
    request: Request | None = None,
    committed: Callable[[Journal], None] | None = None,
) -> T:
    """Load, decide, commit; `committed` is then given the journal.

    Raises what `decide` raises, `InvalidProof` on a replayed proof, `RetriesExhausted`. With a proof also
    `StoreUnavailable`, when the clock is behind the ledger.
    """
    place = (query.tenant, query.run) if query.run is not None else None
    moved: str | None = None
    in_turn = False
    try:
        for tries in range(ports.limits.max_tries):
            if place is not None and not in_turn and (tries or ports.turns.is_waited_for(place)):
                await ports.turns.take(place)
                in_turn = True
            try:
                tried = await _tried(ports, query, decide, proof, request, look=tries > 0)
            except RevisionMoved as refused:
                moved = str(refused)
                continue
            if tried is not None and (tried[1] is None or await _committed(ports, tried[1])):
                change = tried[0]
                break
        else:
            if moved is not None:
                raise PolicyUnavailable(moved, retry_after_ms=1000)
            raise RetriesExhausted("others changed the run at every try; try again", retry_after_ms=200)
    finally:
        if place is not None and in_turn:
            ports.turns.give(place)
    if isinstance(change, Change):
        _then(change, committed)
    return change.answer


async def _tried(
    ports: Ports,
    query: Query,
    decide: Callable[[Loaded], Awaitable[Change[T] | Repeat[T]]],
    proof: ProofUse | None,
    request: Request | None,
    *,
    look: bool,
) -> tuple[Change[T] | Repeat[T], WriteSet | None] | None:
    """One decision with what is to be written; without `look` on what the store remembers, if that is enough.

    `None`: it was refused by a memory. Raises as `transact` does, and `RevisionMoved`.
    """
    loaded = None if look or proof is None else ports.store.recall(query)
    recalled = loaded is not None
    if loaded is None:
        loaded = await ports.store.load(query)
    try:
        if proof is not None:
            # Agents and resource servers wait until the clock can be trusted; people can stop a run at any time.
            refuse_clock_doubt(loaded, ports.limits)
        change = await decide(loaded)
    except StepgrantFault as fault:
        if recalled and not isinstance(fault, Unavailable):
            return None
        raise
    if isinstance(change, Repeat):
        return change, _proof_alone(loaded, proof)
    guarded = change.guarded or recalled
    return change, write_set(ports, loaded, change, guarded=guarded, proof=proof, scope=query.answer, request=request)


def _then(change: Change[T], committed: Callable[[Journal], None] | None) -> None:
    if committed is not None:
        committed(change.journal)
    if change.raising is not None:
        raise change.raising


async def _committed(ports: Ports, writes: WriteSet) -> bool:
    """True once it is durable; False when somebody was faster. Raises `InvalidProof`, and what the store raises."""
    try:
        if ports.failpoints is not None:
            ports.failpoints.hit("usecase.before_commit")
        await ports.store.commit(writes)
        if ports.failpoints is not None:
            ports.failpoints.hit("usecase.after_commit")
    except (VersionMoved, GuardMoved, AnswerTaken):
        return False
    except ProofReplayed:
        raise InvalidProof("this DPoP proof was used before") from None
    return True


def _proof_alone(loaded: Loaded, proof: ProofUse | None) -> WriteSet | None:
    """A stored answer is given again to who asks again, but not to who sends a copy of the request."""
    head = loaded.head()
    return None if proof is None else WriteSet(head.tenant, head.run, head.seq, proof=proof)


def write_set(
    ports: Ports,
    loaded: Loaded,
    change: Change[T],
    *,
    guarded: bool,
    proof: ProofUse | None,
    scope: str | None,
    request: Request | None,
) -> WriteSet:
    """The write set of a change: changed rows, entries, payloads, proof and stored answer."""
    journal = change.journal
    answer, payload = _stored(ports, loaded, change, scope, request)
    # What an erased run's last entry commits to goes with the rest.
    payloads = () if change.destroy else tuple(journal.commit.payloads.values())
    rows = (*journal.changed(), *change.rows)
    key = loaded.tenant_key if journal.head.run is None else loaded.key
    if change.rows:
        key = next((row for row in change.rows if isinstance(row, ChainKey)), key)
    start = journal.entries[0].seq if journal.entries else journal.head.seq
    if journal.head.run is None and journal.entries and not any(isinstance(row, Tenant) for row in rows):
        head = journal.head
        rows = (*rows, replace(loaded.tenant, seq=head.seq, head=head.prev, last_ts=head.last_ts))
    return WriteSet(
        tenant=journal.head.tenant,
        run=journal.head.run,
        expect_seq=start,
        entries=tuple(journal.entries),
        rows=rows,
        payloads=(*payloads, payload) if payload is not None else payloads,
        guard=loaded.tenant.guard if guarded else None,
        raise_guard=change.raise_guard,
        lease_until=change.lease_until,
        proof=proof,
        answer=answer,
        erase=change.erase,
        key=key,
        destroy=change.destroy,
        answers_over=change.answers_over,
    )


def _stored(
    ports: Ports, loaded: Loaded, change: Change[T], scope: str | None, request: Request | None
) -> tuple[StoredAnswer | None, Payload | None]:
    if scope is None or request is None or (loaded.answer is not None and loaded.answer.expires_at > loaded.now):
        # A start repeats under its key without a stored answer: the key is remembered already.
        return None, None
    tenant = ports.committer(present(loaded.tenant_key))
    payload = None
    if change.stored is not None:
        kept = Committer(change.journal.commit.secret)
        payload = kept.payloads[kept.value("request.answer", change.stored)]
    answer = StoredAnswer(
        scope=scope,
        tenant=change.journal.head.tenant,
        run=change.journal.head.run or "",
        body_c=tenant.peek("request.body", canonical.digest_bytes(request.body)),
        status=change.status,
        answer_c=payload.c if payload is not None else None,
        expires_at=loaded.now + ports.limits.answer_kept_ms,
    )
    return answer, payload


def by_agent(caller: AgentCaller) -> By:
    """Entries caused by a workload."""
    return By("workload", caller.subject)


def by_person(person: PersonCaller) -> By:
    """Entries caused by a person."""
    return By("person", person.name)
